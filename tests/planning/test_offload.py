"""What a plan says about `offload`, and where an estimate counts the state."""

import pytest
import torch
from torch import nn

import hub
from hub.running.buckets.sizes import ELEMENTS

SIDE = 2048
"""A square of it is one bucket."""
LAYERS = 12


def model(device="meta"):
    with torch.device(device):
        return nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(LAYERS)))


def said(plan):
    return [finding.what for finding in plan.findings if "offload" in finding.what]


def test_on_the_cpu_it_saves_nothing():
    assert said(hub.plan("sgd", nn.Linear(2, 2), offload="cpu")) == [
        "offload='cpu' saves nothing here: the model is on the CPU, and so is its state"
    ]
    assert said(hub.plan("sgd", nn.Linear(2, 2))) == []


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("adamw_torch", "that of about 4,194,304 elements after another"),
        ("adamw_torch_layerwise", "that of one parameter after another"),
        ("prodigy", "prodigy updates all parameters together"),
    ],
)
def test_the_plan_says_what_is_moved_at_once(name, how):
    (text,) = said(hub.plan(name, model(), offload="cpu"))
    assert how in text


def test_paged_state_is_refused():
    for form in ("paged_lion_32bit", "paged_lion_32bit_layerwise"):
        with pytest.raises(hub.UnsupportedError, match="bitsandbytes pages it") as refused:
            hub.build(form, nn.Linear(2, 2), offload="cpu")
        assert refused.value.where == "offload"


@pytest.mark.parametrize(
    ("name", "matrices"), [("adamw_torch", 3), ("adamw_torch_layerwise", 3), ("prodigy", LAYERS)]
)
def test_the_estimate_counts_what_is_on_the_device_at_once(name, matrices):
    plain, other = (hub.estimate(name, model(), **o) for o in ({}, {"offload": "cpu"}))
    assert SIDE**2 == ELEMENTS
    assert plain.host == 0
    assert other.host == plain.state
    assert other.state == plain.state * matrices // LAYERS
    assert other.total - other.state == plain.total - plain.state


def test_what_parameters_share_stays_on_the_device():
    plain, other = (hub.estimate("lion_8bit", model(), **o) for o in ({}, {"offload": "cpu"}))
    shared = plain.state - other.host
    assert shared == 1024  # the quantization map
    assert other.state == shared + other.host * 3 // LAYERS


def test_several_optimizers_pass_their_state_one_after_another():
    plain, other = (
        hub.estimate("muon", nn.Sequential(model(), nn.Embedding(SIDE, SIDE)), **o)
        for o in ({}, {"offload": "cpu"})
    )
    assert other.host == plain.state
    of_muon = 3 * 4 * SIDE**2
    assert other.state == of_muon
