"""A value that was given counts, also where it equals the default of Transformers."""

import copy
import dataclasses
import pickle

import pytest
from helpers.problem import make_model
from helpers.trainer import settings, trainer
from transformers import HfArgumentParser, TrainingArguments
from trl import SFTConfig, TrlParser

import hub
from hub.trainers.transformers import hub_arguments

HubArguments = hub_arguments(TrainingArguments)
DEFAULTS = {"betas": (0.9, 0.99), "eps": 1e-6}
"""StableAdamW's own, for what was not given."""


def in_code(folder, values):
    return HubArguments(str(folder), optim="stable_adamw", **values)


def in_attributes(folder, values):
    made = HubArguments(str(folder), optim="stable_adamw")
    for key, value in values.items():
        setattr(made, key, value)
    return made


def in_a_method(folder, values):
    names = {"adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "epsilon"}
    made = HubArguments(str(folder))
    return made.set_optimizer("stable_adamw", **{names[key]: v for key, v in values.items()})


def on_a_command_line(folder, values):
    words = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    line = ["--output_dir", str(folder), "--optim", "stable_adamw", *words]
    return HfArgumentParser(HubArguments).parse_args_into_dataclasses(line)[0]


def in_a_file(folder, values):
    lines = [f"{key}: {value!r}" for key, value in values.items()]
    path = folder / "given.yaml"
    path.write_text("\n".join([f"output_dir: {folder}", "optim: stable_adamw", *lines]))
    return HfArgumentParser(HubArguments).parse_yaml_file(str(path))[0]


def in_trls_file(folder, values):
    in_a_file(folder, values)
    line = ["--config", str(folder / "given.yaml"), "--bf16", "false"]
    return TrlParser(hub_arguments(SFTConfig)).parse_args_and_config(line)[0]


WAYS = (in_code, in_attributes, in_a_method, on_a_command_line, in_a_file, in_trls_file)


def built_from(config):
    optimizer = hub.create_optimizer(make_model(), config)
    return {key: optimizer.param_groups[0][key] for key in DEFAULTS}


# TRL 1.16 gives Transformers' deprecated argument.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, DEFAULTS),
        ({"adam_beta2": 0.999}, {"betas": (0.9, 0.999), "eps": 1e-6}),
        ({"adam_epsilon": 1e-8}, {"betas": (0.9, 0.99), "eps": 1e-8}),
        ({"adam_beta1": 0.9}, DEFAULTS),
        ({"adam_beta2": 0.95, "adam_epsilon": 1e-8}, {"betas": (0.9, 0.95), "eps": 1e-8}),
    ],
)
def test_equal_to_the_default(way, values, expected, tmp_path):
    assert built_from(way(tmp_path, values)) == expected


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, dataclasses.replace, lambda it: pickle.loads(pickle.dumps(it))],
    ids=["copy", "deepcopy", "replace", "pickle"],
)
def test_copies_say_the_same(copied, tmp_path):
    given = in_code(tmp_path, {"adam_beta2": 0.999})
    assert built_from(copied(given)) == {"betas": (0.9, 0.999), "eps": 1e-6}
    assert built_from(copied(in_code(tmp_path, {}))) == DEFAULTS


@pytest.mark.parametrize(("values", "momentum"), [({}, 0.0), ({"adam_beta1": 0.9}, 0.9)])
def test_the_momentum_of_sgd(values, momentum, tmp_path):
    """As Transformers' documentation has it; its Trainer (5.23) passes none."""
    running = trainer(make_model(), settings(tmp_path, HubArguments, optim="sgd", **values))
    assert running.create_optimizer().param_groups[0]["momentum"] == momentum
