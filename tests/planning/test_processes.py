"""Under DeepSpeed, what cannot train there is refused before anything is built."""

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from helpers.unchanged import unchanged

import hub
from hub.testing.kit_model import make_model

REFUSED = {
    "lomo": "collects the gradients itself",
    "adamw_torch_layerwise": "collects the gradients itself",
    "galore_adamw": "flat pieces",
    "galore_adamw_layerwise": "collects the gradients itself",
    "apollo_adamw": "flat pieces",
    "adafactor": "flat pieces",
    "stable_adamw": "flat pieces",
    "grokadamw": "flat pieces",
    "adamw_8bit": "flat pieces",
    "flash_adamw": "flat pieces",
    "schedule_free_adamw": "its own copies",
}


def build(name, model):
    low_rank = {"target_modules": "all-linear"} if "galore" in name or "apollo" in name else {}
    return hub.build(name, model, **low_rank)


@pytest.fixture
def partitioned():
    """As `deepspeed.zero.Init` marks parameters."""
    model = make_model()
    for number, parameter in enumerate(model.parameters()):
        parameter.ds_id = number
    return model


@pytest.fixture
def under_accelerate():
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=REFUSED)
def test_partitioned_parameters(name, reason, partitioned):
    with unchanged(partitioned), pytest.raises(hub.UnsupportedError, match=reason):
        build(name, partitioned)


@pytest.mark.usefixtures("under_accelerate")
@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=REFUSED)
def test_accelerate_tells(name, reason):
    with pytest.raises(hub.UnsupportedError, match=reason):
        build(name, make_model())


@pytest.mark.usefixtures("under_accelerate")
@pytest.mark.parametrize("name", ["adamw_torch", "rmsprop", "lion_32bit"])
def test_others_are_built(name, partitioned):
    assert build(name, partitioned)


def test_partitioned_weights_decay_as_whole_ones(partitioned):
    """The third stage leaves empty parameters, and their shapes elsewhere."""
    expected = hub.plan("adamw_torch", partitioned).groups
    for parameter in partitioned.parameters():
        parameter.ds_shape = parameter.shape
        parameter.data = torch.empty(0)
    assert hub.plan("adamw_torch", partitioned).groups == expected
    refused = hub.plan("galore_adamw", partitioned, target_modules="all-linear").refusal
    assert "flat pieces" in refused.what
