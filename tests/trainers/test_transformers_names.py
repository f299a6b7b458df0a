"""Names in `optim=`: by `hub_arguments`, and by `enable` with Transformers' own arguments."""

import copy
import dataclasses
import pickle
import subprocess
import sys

import pytest
import torch
from helpers.problem import arguments, difference, make_model, names, plain, targets, weights_of
from helpers.trainer import WEIGHT_DECAY, settings, trainer
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    HfArgumentParser,
    Seq2SeqTrainingArguments,
    TrainingArguments,
)
from transformers.training_args import OptimizerNames

import hub
from hub.spec import Trait
from hub.trainers.transformers import disable, enable, hub_arguments

DECAY = {"weight_decay": WEIGHT_DECAY}
HubArguments = hub_arguments(TrainingArguments)
WITHOUT_HUB = """
import sys, torch
sys.modules["hub"] = None
from transformers import TrainingArguments
loaded = torch.load(sys.argv[1], weights_only=False)
assert type(loaded) is TrainingArguments
assert loaded.optim == "stable_adamw_layerwise"
assert loaded.weight_decay == 0.1
"""


def as_text(mapping):
    """Return arguments as the command line has them."""
    return ", ".join(f"{key}={value}" for key, value in mapping.items()) or None


def trained(config):
    model = make_model()
    running = trainer(model, config)
    running.train()
    return weights_of(model), running


def asked(name):
    chosen = {"optim": name, "optim_args": as_text(arguments(name))}
    anneals = Trait.SCHEDULE_FREE in hub.describe(name).traits
    chosen["lr_scheduler_type"] = "constant" if anneals else "linear"
    return chosen | {"optim_target_modules": targets(name)}


@pytest.mark.parametrize("name", names())
def test_every_name_is_hubs(name, tmp_path):
    """Those as well that Transformers has; what they train like is in `test_transformers.py`."""
    config = settings(tmp_path, HubArguments, **asked(name))
    plan = trainer(make_model(), config).create_optimizer().hub_plan
    values = {argument.name: argument.value for argument in plan.arguments}
    assert plan.optimizer == name
    assert {key: values[key] for key in arguments(name)} == arguments(name)


@pytest.mark.parametrize("name", ["stable_adamw", "galore_adamw_layerwise", "lomo"])
def test_training_by_name(name, tmp_path):
    weights, running = trained(settings(tmp_path, HubArguments, **asked(name)))
    assert isinstance(running.optimizer.optimizer, torch.optim.Optimizer)
    assert difference(weights, plain(name, defaults=DECAY).weights) == 0


def test_a_command_line(tmp_path):
    line = "--optim galore_adamw --optim_target_modules all-linear --learning_rate 1e-3"
    (config,) = HfArgumentParser(HubArguments).parse_args_into_dataclasses(
        [*line.split(), "--optim_args", "rank=4, betas=(0.9,0.95)", "--output_dir", str(tmp_path)]
    )
    plan = trainer(make_model(), config).create_optimizer().hub_plan
    values = {argument.name: argument.value for argument in plan.arguments}
    assert (values["rank"], values["betas"], values["lr"]) == (4, (0.9, 0.95), 1e-3)


def test_a_yaml_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"output_dir: {tmp_path}\noptim: schedule_free_adamw\n"
        "optim_args: warmup_steps=2\nlearning_rate: 1.0e-3\nlr_scheduler_type: constant\n"
    )
    (config,) = HfArgumentParser(HubArguments).parse_yaml_file(str(path))
    group = trainer(make_model(), config).create_optimizer().param_groups[0]
    assert (group["warmup_steps"], group["lr"]) == (2, 1e-3)


@pytest.mark.parametrize("cls", [TrainingArguments, Seq2SeqTrainingArguments])
def test_the_class_is_theirs_in_all_else(cls, tmp_path):
    ours = hub_arguments(cls)
    assert ours.__name__ == cls.__name__
    assert issubclass(ours, cls)
    assert hub_arguments(ours) is ours
    assert [field.name for field in dataclasses.fields(ours)] == [
        field.name for field in dataclasses.fields(cls)
    ]
    made, theirs = ours(str(tmp_path)), cls(str(tmp_path))
    assert made.to_dict() == theirs.to_dict()
    assert made.optim == theirs.optim.value
    if cls is TrainingArguments:  # Seq2SeqTrainingArguments' own repr (5.23) shows it
        assert "secret" not in repr(ours(str(tmp_path), hub_token="secret"))


def test_changing_the_name(tmp_path):
    config = settings(tmp_path, HubArguments, optim="stable_adamw")
    assert dataclasses.replace(config, optim="lomo").optim == "lomo"
    assert config.set_optimizer("adamw_torch_layerwise", beta2=0.9).optim == "adamw_torch_layerwise"
    assert config.adam_beta2 == 0.9
    assert type(config.set_optimizer("galore_adamw").optim) is str
    assert type(copy.deepcopy(config).optim) is str


def test_a_name_that_only_transformers_has_is_left_to_it(tmp_path):
    config = settings(tmp_path, HubArguments, optim="adamw_torch_xla")
    assert config.optim is OptimizerNames.ADAMW_TORCH_XLA


@given(st.text())
def test_any_other_name_is_an_error_at_once(name):
    if name not in {*hub.list_optimizers(), *(member.value for member in OptimizerNames)}:
        with pytest.raises(hub.UnknownOptimizerError):
            HubArguments("somewhere", optim=name)


@pytest.mark.parametrize("thing", [None, int, TrainingArguments("somewhere"), "TrainingArguments"])
def test_what_is_no_class_of_arguments_is_refused(thing):
    with pytest.raises(hub.OptimArgsError, match="not a subclass of"):
        hub_arguments(thing)


def test_saved_arguments_load_without_hub(tmp_path):
    config = settings(tmp_path, HubArguments, optim="stable_adamw_layerwise")
    trainer(make_model(), config).save_model(tmp_path / "model")
    path = str(tmp_path / "model" / "training_args.bin")
    subprocess.run([sys.executable, "-c", WITHOUT_HUB, path], check=True)


def test_loaded_arguments_train_as_those_that_were_saved(tmp_path):
    config = settings(tmp_path, HubArguments, **asked("galore_adamw"))
    again = pickle.loads(pickle.dumps(config))
    assert type(again) is TrainingArguments
    assert difference(trained(config)[0], trained(again)[0]) == 0


def test_plain_arguments_stay_with_transformers(tmp_path):
    model = make_model()
    config = settings(tmp_path, optim="adamw_torch")
    optimizer = trainer(model, config).create_optimizer()
    assert type(optimizer) is torch.optim.AdamW
    assert not hasattr(optimizer, "hub_plan")


def snapshot():
    return (
        list(OptimizerNames),
        {key: value for key, value in vars(OptimizerNames).items() if not key.startswith("__")},
        dict(OptimizerNames._member_map_),
        dict(OptimizerNames._value2member_map_),
    )


@pytest.mark.parametrize("name", ["adamw_torch_layerwise", "flash_adamw", "ademamix_layerwise"])
def test_enabled_names_work_in_plain_arguments(name, tmp_path):
    with enable():
        config = settings(tmp_path, **asked(name))
        weights, running = trained(config)
        assert isinstance(config.optim, OptimizerNames)
        assert config.to_dict()["optim"] == name
        assert running.optimizer.optimizer.hub_plan.optimizer == name
    assert difference(weights, plain(name, defaults=DECAY).weights) == 0


def test_enabled_names_work_on_the_command_line(tmp_path):
    line = ["--optim", "flash_adamw", "--optim_args", "betas=(0.9,0.95)"]
    with enable():
        parser = HfArgumentParser(TrainingArguments)
        (config,) = parser.parse_args_into_dataclasses([*line, "--output_dir", str(tmp_path)])
    assert config.optim == "flash_adamw"


def test_disabling_restores_everything(tmp_path):
    before = snapshot()
    with enable():
        enable(override=True)
        assert len(OptimizerNames) > len(before[0])
        assert "flash_adamw" in [member.value for member in OptimizerNames]
        assert OptimizerNames.FLASH_ADAMW is OptimizerNames("flash_adamw")
        assert OptimizerNames["FLASH_ADAMW"].name == "FLASH_ADAMW"
        assert pickle.loads(pickle.dumps(OptimizerNames.FLASH_ADAMW)) is OptimizerNames.FLASH_ADAMW
    assert snapshot() == before
    with pytest.raises(ValueError, match="flash_adamw"):
        settings(tmp_path, optim="flash_adamw")
    disable()
    assert snapshot() == before


def test_names_of_transformers_stay_its_own_unless_overridden(tmp_path):
    config = settings(tmp_path, optim="stable_adamw")
    with enable():
        made = trainer(make_model(), settings(tmp_path, optim="adamw_torch")).create_optimizer()
        assert not hasattr(made, "hub_plan")
    with enable(override=True):
        assert trainer(make_model(), config).create_optimizer().hub_plan.optimizer == "stable_adamw"
    config = settings(tmp_path, optim="adamw_torch")
    assert not hasattr(trainer(make_model(), config).create_optimizer(), "hub_plan")


def test_disabling_restores_the_trainers_method():
    """Where no arguments class of hub needs it."""
    script = """
from transformers import Trainer
theirs = vars(Trainer)["get_optimizer_cls_and_kwargs"]
from hub.trainers.transformers import disable, enable
assert vars(Trainer)["get_optimizer_cls_and_kwargs"] is theirs
enable()
assert vars(Trainer)["get_optimizer_cls_and_kwargs"] is not theirs
disable()
assert vars(Trainer)["get_optimizer_cls_and_kwargs"] is theirs
"""
    subprocess.run([sys.executable, "-c", script], check=True)
