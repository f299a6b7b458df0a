"""Every script in `benchmarks/` runs, on sizes that measure nothing."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from hub.compare.tasks import Options

pytestmark = pytest.mark.filterwarnings("ignore")  # of upstream's classes, built by hand

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = [(2, 4)] * 2
CASES = {
    "adafactor": ({"LAYERS": 2, "STEPS": 2, "ROUNDS": 2}, [], "width 128"),
    "backward": ({"SIZES": (2, 4), "STEPS": 1, "ROUNDS": 1}, [], "galore_adamw_layerwise"),
    "large_model": ({"BLOCKS": 2, "TURNS": 1}, [], "12 parameters, two targets"),
    "lookup": ({"RUNS": 1}, [], "hub.list_optimizers"),
    "low_rank": ({"SHAPES": {"tiny": (2, 4, 8, 2, 2)}}, [], "apollo_adamw"),
    "many_tensors": (
        {"MANY": TINY, "MEDIUM": TINY * 2, "LARGE": TINY * 3, "TURNS": {2: 1, 4: 1, 6: 1}}
        | {"ROUNDS": 2},
        ["adagrad", "stable_adamw"],
        "stable_adamw",
    ),
    "refresh": (
        {"STEPS": 2, "GAP": 1, "SEEDS": 2, "RUNS": 1, "MATRIX": (64, 96)}
        | {"STEPPED": ((2, 16, 32),), "STEPPED_FOR": 2, "TOKENS": 4}
        | {"TASK": Options(batch_size=1, sequence_length=16)}
        | {"WAYS": ({"projection": "randomized"},)},
        ["energy", "time", "steps", "loss"],
        "galore_adamw {'projection': 'randomized'}:",
    ),
    "rounding": ({"SHAPES": {"tiny": TINY}, "TURNS": 2, "ROUNDS": 1}, ["sgd"], "at most: 1.6"),
    "step": ({"LAYERS": 1, "STEPS": 2, "ROUNDS": 2}, [], "schedule_free_adamw"),
}
"""The constants of a script that make it short, its arguments, and what it prints at the end."""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def test_every_script_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*CASES, "sharded"}


@pytest.mark.parametrize("name", CASES)
def test_it_runs(name, monkeypatch, capsys):
    constants, arguments, printed = CASES[name]
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # others use the cores too
    script = import_module(name)
    for constant, value in constants.items():
        monkeypatch.setattr(script, constant, value)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    script.main()
    assert printed in capsys.readouterr().out


def test_the_one_of_two_ranks_runs(tmp_path):
    script = tmp_path / "short.py"
    script.write_text("import sharded\nsharded.LAYERS, sharded.STEPS = 1, 1\nsharded.main()\n")
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    ranks = subprocess.run(
        [*TORCHRUN, "--nproc-per-node", "2", script],
        env=os.environ | {"PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "adamw_torch_layerwise under DDP" in ranks.stdout, ranks.stderr
