"""`python -m hub.trainers.transformers -- COMMAND`, in real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset
from helpers.problem import LR, difference, make_model, weights_of
from helpers.sft import text, tokenizer
from safetensors.torch import load_file
from trl import SFTConfig, SFTTrainer

import hub

RUN = [sys.executable, "-m", "hub.trainers.transformers"]
SCRIPTS = Path(sys.executable).parent
# trl 1.16 sets in its own configurations what Transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing:FutureWarning")


def run(*words, options=(), status=0, **variables):
    done = subprocess.run(
        [*RUN, *options, "--", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done


def python(program, **more):
    return run(sys.executable, "-c", program, **more).stdout.split()


SETTINGS = {
    "learning_rate": LR,
    "weight_decay": 0.1,
    "max_grad_norm": 0.0,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


def test_trl_sft(tmp_path):
    """Its script starts another process, as `accelerate launch` does."""
    model, data, out = (tmp_path / name for name in ("model", "data", "out"))
    make_model().save_pretrained(model)
    tokenizer().save_pretrained(model)
    data.mkdir()
    rows = "".join(json.dumps({"text": text(seed)}) + "\n" for seed in range(8))
    (data / "train.jsonl").write_text(rows)
    chosen = {"optim": "stable_adamw_layerwise", "optim_args": "eps=1e-4,kahan_sum=true"}
    options = [f"--{key}={value}" for key, value in {**SETTINGS, **chosen}.items()]
    places = [f"--model_name_or_path={model}", f"--dataset_name={data}", f"--output_dir={out}"]
    cache = {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "ACCELERATE_USE_CPU": "true"}
    run(SCRIPTS / "trl", "sft", *places, *options, "--dtype=float32", **cache)

    ours = make_model()
    given = SFTConfig(str(tmp_path / "reference"), **SETTINGS)
    built = hub.build(
        chosen["optim"], ours, lr=LR, weight_decay=0.1, optim_args=chosen["optim_args"]
    )
    SFTTrainer(
        ours,
        given,
        train_dataset=load_dataset(str(data), split="train", cache_dir=str(tmp_path / "cache")),
        processing_class=tokenizer(),
        optimizers=(built, None),
    ).train()
    saved, expected = load_file(out / "model.safetensors"), weights_of(ours)
    assert saved.keys() == expected.keys()
    assert difference({name: saved[name] for name in expected}, expected) == 0
    assert difference(weights_of(ours), weights_of(make_model())) > 1e-4


SCRIPT = """
import subprocess
import sys
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments
(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
from helpers.problem import make_model
from helpers.trainer import trainer
running = trainer(make_model(), args)
running.train()
plan = running.optimizer.optimizer.hub_plan.optimizer
child = "from transformers.training_args import *; print(OptimizerNames('stable_adamw_layerwise'))"
found = subprocess.check_output([sys.executable, "-c", child], text=True).split()[-1]
print(dist.get_rank(), dist.get_world_size(), plan, found, flush=True)
"""


def test_torchrun_and_the_children_of_its_children(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    helpers = str(Path(__file__).parents[1])
    done = run(
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *(script, f"--output_dir={tmp_path}", "--optim=stable_adamw", "--max_steps=1"),
        *("--use_cpu=true", "--report_to=none", "--save_strategy=no"),
        options=["--override"],  # Transformers (5.23) has this name too
        PYTHONPATH=os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")]),
    )
    lines = sorted(line for line in done.stdout.splitlines() if "stable_adamw" in line)
    expected = "2 stable_adamw OptimizerNames.STABLE_ADAMW_LAYERWISE"
    assert lines == [f"0 {expected}", f"1 {expected}"]


def test_the_process_becomes_the_command():
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    words = [*RUN, "--", sys.executable, "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        assert int(started.stdout.readline()) == started.pid
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=30) == -signal.SIGTERM


def test_the_exit_status_is_the_commands():
    run("sh", "-c", "exit 7", status=7)
    assert (
        run("no-such-command", status=127).stderr == "no-such-command: No such file or directory\n"
    )
    assert run("/", status=126).stderr == "/: Permission denied\n"


@pytest.mark.parametrize("words", [[], ["--"], ["trl", "sft"], ["--overide", "--", "true"]])
def test_what_is_not_a_command_is_refused(words):
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: python -m hub.trainers.transformers [--override] -- COMMAND" in done.stderr


LOADED = "import sys; print(*({'hub', 'transformers', 'torch', 'pydantic'} & sys.modules.keys()))"


def test_nothing_is_imported_at_start():
    assert python(LOADED) == []
    assert python("import hub.trainers.transformers;" + LOADED) == ["hub"]


def test_the_environments_own_sitecustomize_is_executed(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("here = 'theirs'")
    program = "import sys; print(sys.modules['sitecustomize'].here, sys.meta_path[0].__name__)"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert python(program, PYTHONPATH=path) == ["theirs", "Finder"]
    assert python(program, PYTHONPATH=path, options=["--override"]) == ["theirs", "Finder"]


FAKE = """
import sys
sys.path.insert(0, {folder!r})
if {hidden}:
    sys.modules["hub"] = None
import transformers.training_args as imported
print(imported.executed, *imported.__spec__.loader.get_source("transformers.training_args").split())
"""


def fake(tmp_path, *, hidden):
    """Import a package of this name, which has no enum to add names to."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").touch()
    (tmp_path / "transformers" / "training_args.py").write_text("executed = True")
    program = FAKE.format(folder=str(tmp_path), hidden=hidden)
    return run(sys.executable, "-c", program, status=0 if hidden else 1)


def test_an_environment_without_hub_is_warned(tmp_path):
    done = fake(tmp_path, hidden=True)
    assert done.stdout.split() == ["True", "executed", "=", "True"]
    assert f"UserWarning: {sys.executable} has no hub" in done.stderr


def test_other_failures_are_not_hidden(tmp_path):
    assert "cannot import name 'OptimizerNames'" in fake(tmp_path, hidden=False).stderr


NAMES = """
from transformers import Trainer, TrainingArguments
from hub.trainers.transformers import trainer_patch
print(TrainingArguments("o", optim="stable_adamw").optim.value)
print(*({"adamw_torch"} & trainer_patch.enabled))
"""


@pytest.mark.parametrize("options", [[], ["--override"]])
def test_names_that_transformers_has(options):
    """They are hub's where `--override` asks, as with `enable`; a nested command asks anew."""
    outer = ["--", *RUN, *options] if options else ["--override", "--", *RUN]
    words = [*RUN, *outer, "--", sys.executable, "-c", NAMES]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    name, *theirs = done.stdout.split()
    assert name == "stable_adamw"
    assert theirs == (["adamw_torch"] if options else [])
