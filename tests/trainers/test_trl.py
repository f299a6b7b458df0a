"""TRL's trainers (1.16), whose constructors take `optimizer_cls_and_kwargs` for SFT only.

What they are held against is the same trainer around a finished optimizer of `hub.build`.
"""

from itertools import product

import pytest
from datasets import Dataset
from helpers.problem import LR, arguments, difference, make_model, names, targets, weights_of
from helpers.sft import config, sft, text, tokenizer
from helpers.trainer import WEIGHT_DECAY, by_name
from transformers import HfArgumentParser
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig

import hub
from hub.trainers.transformers import attach, enable, hub_arguments

SOME = ("stable_adamw", "galore_adamw", "schedule_free_adamw", "adamw_torch_layerwise", "lomo")
# trl 1.16 sets in its own configurations what Transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.(is_)?gradient_checkpointing:FutureWarning")


def optimizer_of(name):
    return {"optim_args": arguments(name), "target_modules": targets(name)}


def finished(name, model):
    return hub.build(
        name,
        model,
        lr=LR,
        **optimizer_of(name),
        defaults={"lr": LR, "weight_decay": WEIGHT_DECAY},
    )


def dpo(model, given, **more):
    data = Dataset.from_list(
        [{"prompt": text(i), "chosen": text(i + 50), "rejected": text(i + 90)} for i in range(10)]
    )
    return DPOTrainer(
        model,
        ref_model=make_model(),
        args=given,
        train_dataset=data,
        processing_class=tokenizer(),
        **more,
    )


def grpo(model, given, **more):
    data = Dataset.from_list([{"prompt": text(i)} for i in range(10)])
    return GRPOTrainer(
        model,
        reward_funcs=lambda completions, **_: [float(len(set(c.split()))) for c in completions],
        args=given,
        train_dataset=data,
        processing_class=tokenizer(),
        **more,
    )


TRAINERS = {
    "sft": (sft, SFTConfig, {}),
    "dpo": (dpo, DPOConfig, {}),
    "grpo": (grpo, GRPOConfig, {"num_generations": 2, "max_completion_length": 6}),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("sft", name) for name in names()), *product(("dpo", "grpo"), SOME)],
)
def test_as_with_a_finished_optimizer(kind, name, tmp_path):
    make, cls, values = TRAINERS[kind]
    ours, theirs = make_model(), make_model()
    given = config(cls, name, tmp_path, **values)
    if kind == "sft":
        running = make(ours, given, optimizer_cls_and_kwargs=by_name(name))
    else:
        running = make(ours, given)
        attach(running, name, **optimizer_of(name))
    running.train()
    reference = make(theirs, given, optimizers=(finished(name, theirs), None))
    reference.train()
    assert difference(weights_of(ours), weights_of(theirs)) == 0
    assert difference(weights_of(ours), weights_of(make_model())) > 1e-4


@pytest.mark.parametrize("way", ["hub_arguments", "enable", "command line"])
def test_names_in_sft_config(way, tmp_path):
    name = "adamw_torch_layerwise"
    model = make_model()
    with enable():
        if way == "enable":
            given = config(SFTConfig, name, tmp_path, optim=name)
        elif way == "hub_arguments":
            given = config(hub_arguments(SFTConfig), name, tmp_path, optim=name)
        else:
            parser = HfArgumentParser(hub_arguments(SFTConfig))
            line = [f"--optim={name}", f"--output_dir={tmp_path}", "--use_cpu=True"]
            line.append("--max_grad_norm=0")
            (given,) = parser.parse_args_into_dataclasses(line)
        optimizer = sft(model, given).create_optimizer()
    assert optimizer.hub_plan.optimizer == name
