"""Optimizers named in Hydra's configuration, whose lists and mappings are OmegaConf's own."""

import json

import hydra
import pytest
import torch
from helpers.problem import LR, STEPS, batch, difference, make_model, plain, rows, weights_of
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import hub
from hub.testing.comparing import through_a_file

PARTIAL = """
optimizer:
  _target_: hub.build
  _partial_: true
  name: adamw_torch
  lr: ${lr}
  optim_args: {betas: [0.9, 0.999]}
schedule:
  _target_: hub.build_scheduler
  _partial_: true
  name: linear
lr: 1.0
"""
CHANGES = ["optimizer.optim_args.betas=[0.8,0.9]", f"lr={LR}"]


def loop(optimizer, schedule, model):
    samples = rows(2 * STEPS)
    for step in range(STEPS):
        model(**batch(samples[2 * step : 2 * step + 2])).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return weights_of(model)


def test_from_a_file_and_a_command_line(tmp_path):
    (tmp_path / "config.yaml").write_text(PARTIAL)
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = hydra.compose("config", overrides=CHANGES)
    model = make_model().train()
    optimizer = instantiate(config.optimizer)(model=model)
    schedule = instantiate(config.schedule)(optimizer=optimizer, num_training_steps=STEPS)
    expected = plain("adamw_torch", betas=(0.8, 0.9)).weights
    assert difference(loop(optimizer, schedule, model), expected) == 0


def built(**config):
    given = OmegaConf.create({"_target_": "hub.build", "name": "adamw_torch", **config})
    return instantiate(given, model=make_model())


CASES = [
    pytest.param({"betas": [0.8, 0.9]}, id="a list among keywords"),
    pytest.param({"optim_args": {"betas": [0.8, 0.9]}}, id="a list in a mapping"),
    pytest.param({"optim_args": "betas=(0.8, 0.9)"}, id="text"),
    pytest.param({"param_rules": {"mlp": {"betas": [0.8, 0.9]}}}, id="rules"),
    pytest.param({"param_rules": [["mlp", {"betas": [0.8, 0.9]}]]}, id="rules in order"),
    pytest.param({"name": "galore_adamw", "target_modules": ["mlp", "attn"]}, id="targets"),
    pytest.param({"defaults": {"betas": [0.8, 0.9]}}, id="defaults"),
]


@pytest.mark.parametrize("config", CASES)
@pytest.mark.parametrize("convert", ["none", "all"])
def test_what_is_written_is_what_a_call_would_say(config, convert):
    """And the state is plain data."""
    optimizer = built(**config, _convert_=convert)
    expected = hub.build(config.get("name", "adamw_torch"), make_model(), **without(config))
    assert optimizer.hub_plan == expected.hub_plan
    assert json.loads(json.dumps(optimizer.hub_plan.to_dict()))
    assert through_a_file(optimizer.state_dict()) == expected.state_dict()


def without(config):
    return {key: value for key, value in config.items() if key != "name"}


def test_a_training_configuration():
    given = {
        "optim": "galore_adamw",
        "optim_args": {"rank": 4, "betas": [0.8, 0.9]},
        "optim_target_modules": ["mlp"],
    }
    ours = hub.create_optimizer(make_model(), OmegaConf.create(given))
    assert ours.hub_plan == hub.create_optimizer(make_model(), given).hub_plan


def test_a_list_for_a_schedule():
    optimizer = hub.build("sgd", torch.nn.Linear(2, 2), lr=1.0)
    given = {
        "_target_": "hub.build_scheduler",
        "name": "reduce_lr_on_plateau",
        "min_lr": [0.1, 0.2],
    }
    schedule = instantiate(OmegaConf.create(given), optimizer=optimizer)
    assert schedule.min_lrs == [0.1, 0.2]


@pytest.mark.parametrize(
    "config",
    [
        {"betas": [0.8]},
        {"betas": {"first": 0.8}},
        {"target_modules": []},
        {"param_rules": [["mlp"]]},
        {"param_rules": {"mlp": 0.1}},
        {"name": "adamw_torc"},
    ],
)
def test_bad_input_is_as_bad_from_hydra(config):
    with pytest.raises(InstantiationException) as raised:
        built(**config)
    assert isinstance(raised.value.__cause__, hub.HubError)
