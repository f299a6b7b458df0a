"""Which forms `hub fit` says do not learn: those whose plan warns of it."""

import pytest
import torch
from torch import nn

import hub
from hub.names.layerwise_spec import LAYERWISE_SUFFIX
from hub.planning.fit import candidates

STALL = "round to zero"


def linear(dtype, device="meta"):
    with torch.device(device):
        return nn.Sequential(nn.Linear(256, 256, dtype=dtype), nn.Linear(256, 256, dtype=dtype))


def stalling(counted):
    return {each.form.label for each in counted.found if each.stalls}


PLAIN = {"", "layerwise", "offload=cpu", "layerwise, offload=cpu"}
"""The forms without `rounding`."""


@pytest.mark.parametrize(
    ("name", "dtype", "lr", "expected"),
    [
        pytest.param("adamw_torch", torch.float32, 1e-9, set(), id="fp32"),
        pytest.param("adamw_torch", torch.float64, 1e-9, set(), id="a dtype of another kind"),
        pytest.param("adamw_torch", torch.bfloat16, 2e-5, PLAIN, id="bf16"),
        pytest.param("adamw_torch", torch.float16, 1e-9, set(), id="fp16, which needs rounding"),
        pytest.param("adamw_torch", torch.bfloat16, 1e-3, set(), id="a high learning rate"),
        pytest.param("adamw_torch", torch.bfloat16, None, set(), id="the default, which is high"),
        pytest.param("stable_adamw", torch.bfloat16, 2e-5, set(), id="compensated"),
        pytest.param("adamw_torch_8bit", torch.bfloat16, 2e-5, PLAIN, id="not by default"),
    ],
)
def test_the_forms_that_stall(name, dtype, lr, expected):
    counted = candidates([name], linear(dtype), lr=lr)
    assert counted.found
    assert stalling(counted) == expected


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_it_is_what_each_plan_says(device):
    model = linear(torch.bfloat16, device)
    names = ["adamw_torch", "stable_adamw", "adafactor", "prodigy", "lomo", "lion_32bit"]
    counted = candidates(names, model, lr=2e-5)
    assert not counted.refused
    for each in counted.found:
        name = each.name + LAYERWISE_SUFFIX * each.form.is_layerwise
        plan = hub.plan(name, model, lr=2e-5, **each.form.arguments)
        assert each.stalls == any(STALL in str(finding) for finding in plan.findings), name


def test_real_weights_are_read():
    model = linear(torch.bfloat16, "cpu")
    assert not stalling(candidates(["adamw_torch"], model, lr=1e-3))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1.0)
    assert stalling(candidates(["adamw_torch"], model, lr=1e-3)) == PLAIN


def test_what_stalls_comes_last_and_the_smallest_first_among_both():
    found = candidates(["adamw_torch", "sgd"], linear(torch.bfloat16), lr=2e-5).found
    order = [(each.stalls, each.estimate.total) for each in found]
    assert order == sorted(order)
    assert {stalls for stalls, _ in order} == {False, True}
    assert min(found, key=lambda each: each.estimate.total).stalls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_rate_below_which_weights_stall(dtype):
    """It is where the plan's warning ends."""
    model = linear(dtype)
    below = candidates(["sgd"], model).stalls_below
    if dtype in {torch.float32, torch.float64}:
        assert below is None
        return
    for factor, warned in [(0.99, True), (1.0, False)]:
        findings = hub.plan("sgd", model, lr=below * factor).findings
        assert any(STALL in str(finding) for finding in findings) == warned


def test_rounding_trains_what_the_plain_form_cannot():
    """In fp16; any other refusal is that of all forms."""
    counted = candidates(["adamw_torch"], linear(torch.float16))
    assert {each.form.arguments.get("rounding") for each in counted.found} == {
        "split",
        "stochastic",
    }


@pytest.mark.parametrize("lr", [0.0, -1.0, float("inf"), float("nan")])
def test_other_rates_are_refused(lr):
    with pytest.raises(hub.OptimArgsError, match="not a learning rate"):
        candidates(["sgd"], linear(torch.float32), lr=lr)
