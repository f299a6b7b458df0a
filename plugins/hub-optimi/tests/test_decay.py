"""Weight decay of `stable_adamw`: relative to a learning rate, or too small for bf16."""

import optimi
import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import moved, weights
from hub.testing.upstream import small_model

from .wrapped import OWN, build

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


def hub_warnings(model, **arguments):
    plan = hub.plan("stable_adamw", model, **{**OWN, "weight_decay": 0.0, **arguments})
    return [finding.what for finding in plan.findings if finding.level == "warn"]


@pytest.mark.parametrize(
    ("arguments", "stalls"),
    [
        ({}, False),
        ({"kahan_sum": True}, False),
        ({"kahan_sum": False}, True),
        ({"param_rules": {"0": {"kahan_sum": False}}}, True),
        ({"kahan_sum": False, "param_rules": {".*": {"kahan_sum": True}}}, False),
        ({"kahan_sum": False, "lr": 0.01}, False),
    ],
    ids=str,
)
def test_bf16_weights_that_stall_are_warned_of(arguments, stalls):
    found = hub_warnings(small_model(torch.bfloat16), **{"lr": 1e-5, **arguments})
    assert ["mostly round to zero" in what for what in found] == [True] * stalls
    assert not hub_warnings(small_model(), **{"lr": 1e-5, **arguments})


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        ({"lr": 1e-2, "weight_decay": 0.1}, True),
        ({"lr": 1e-2, "weight_decay": 0.3}, False),
        ({"lr": 1e-2, "weight_decay": 0.0}, False),
        ({"lr": 1e-2, "weight_decay": 5e-4, "decouple_lr": True}, True),
    ],
    ids=str,
)
def test_decay_that_rounds_to_nothing_is_warned_of(arguments, lost):
    model = small_model(torch.bfloat16)
    found = [what for what in hub_warnings(model, **arguments) if "there is no decay" in what]
    assert len(found) == lost
    assert not hub_warnings(small_model(), **arguments)
    before = weights(model)
    optimizer = build(model, **arguments)
    for _ in range(5):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    decays = bool(arguments["weight_decay"]) and not lost
    assert moved(model, before) == ({"0.weight", "2.weight"} if decays else set())


def decay_of(weight, optimizer):
    """Share that one step without gradient takes off a weight."""
    before = weight.detach().clone()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return (1 - weight / before).mean().item()


@pytest.mark.filterwarnings("ignore:.*decouple_lr:hub.HubWarning")
@pytest.mark.parametrize(
    ("arguments", "rule", "share"),
    [
        ({}, {"lr": 0.001}, 1.0),
        ({}, {"lr_scale": 0.1}, 1.0),
        ({"max_lr": 0.05}, {"lr_scale": 0.1}, 0.2),
        ({"max_lr": 0.05}, {"eps": 1e-5}, 0.2),
        ({"max_lr": 0.05}, {"max_lr": 0.02}, 0.5),
        ({"max_lr": 0.05}, {"lr": 0.001, "max_lr": 0.002}, 0.5),
        ({"max_lr": 0.05}, {"lr": 0.0}, 0.0),
    ],
    ids=str,
)
def test_decoupled_decay_is_relative_to_the_groups_own_learning_rate(arguments, rule, share):
    model = small_model().double()
    optimizer = build(model, decouple_lr=True, param_rules={"0": rule}, **arguments)
    assert decay_of(model[0].weight, optimizer) == pytest.approx(0.1 * share, rel=1e-9)


@pytest.mark.filterwarnings("ignore:.*decouple_lr:hub.HubWarning")
def test_decoupled_decay_of_a_late_group_is_relative_to_its_own_learning_rate():
    late = nn.Linear(4, 4, bias=False).double()
    optimizer = build(small_model(), decouple_lr=True)
    optimizer.add_param_group({"params": [late.weight], "param_names": ["late"], "lr": 0.001})
    assert decay_of(late.weight, optimizer) == pytest.approx(0.1, rel=1e-9)


def test_the_upstream_class_decays_such_a_group_at_another_rate():
    """When this fails, `factory.StableAdamW._max_lr` is not needed any more."""
    weight = nn.Parameter(torch.ones(4, dtype=torch.float64))
    arguments = {"lr": 0.01, "weight_decay": 0.1, "decouple_lr": True, "triton": False}
    with pytest.warns(UserWarning, match="potentially high"):
        optimizer = optimi.StableAdamW([{"params": [weight], "lr": 0.001}], **arguments)
    assert decay_of(weight, optimizer) == pytest.approx(0.01, rel=1e-9)


def test_high_decoupled_decay_is_warned_of_by_hub_alone():
    with pytest.warns(hub.HubWarning, match="weight_decay=0.1 in every step") as seen:
        build(small_model(), decouple_lr=True)
    assert len(seen) == 1
    assert "weight_decay=0.001 decays as much" in str(seen[0].message)
