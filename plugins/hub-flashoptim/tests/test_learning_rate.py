"""Schedules of the FlashOptim names, and decay that is relative to the learning rate."""

import flashoptim
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import small_model, train

from .wrapped import (
    ON_CPU,
    build,
    decoupled_names,
    every_name,
    halving,
    no_master_weights,
    rates,
    resumed,
)

pytestmark = no_master_weights


@every_name
def test_schedules_start_from_each_groups_own_rate(name):
    model = small_model()
    optimizer = build(name, model, lr=0.01, param_rules={"2": {"lr": 1e-3}})
    assert rates(optimizer) == [0.01, 0.01, 1e-3, 1e-3]
    scheduler = halving(optimizer)
    assert rates(optimizer) == [0.01, 0.01, 1e-3, 1e-3]
    train(model, optimizer, [0])
    scheduler.step()
    assert rates(optimizer) == [0.005, 0.005, 5e-4, 5e-4]


@every_name
def test_schedules_start_from_a_rate_that_was_edited(name):
    model = small_model()
    optimizer = build(name, model)
    fresh, other = resumed(name, model, optimizer)  # loading must leave no rate behind either
    for late in (optimizer, other):
        for group in late.param_groups:
            group["lr"] = 0.3
        halving(late)
        assert rates(late) == [0.3, 0.3]
    assert fresh is not model


def test_the_upstream_class_resets_every_rate_to_the_constructors():
    """When this fails, `_Fixes.add_param_group` is not needed any more."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = flashoptim.FlashAdamW([{"params": [weight], "lr": 1e-5}], lr=1e-2, **ON_CPU)
    halving(optimizer)
    assert rates(optimizer) == [1e-2]


@every_name
def test_the_schedule_of_a_late_group_starts_from_its_own_rate(name):
    model, extra = small_model(), nn.Linear(16, 8)
    optimizer = build(name, model)
    late = dict(extra.named_parameters(prefix="extra"))
    optimizer.add_param_group({"params": list(late.values()), "param_names": list(late), "lr": 0.5})
    assert halving(optimizer).base_lrs == [0.01, 0.01, 0.5]


class Shrinking:
    """What share a step without gradients takes off each of two weights."""

    def __init__(self, name, **arguments):
        self.weights = nn.ParameterDict({"a": torch.ones(2, 2), "b": torch.ones(2, 2)})
        self.optimizer = hub.build(
            name, self.weights, weight_decay=0.01, decouple_lr=True, **arguments
        )

    def step(self):
        before = [weight.detach().clone() for weight in self.weights.values()]
        for weight in self.weights.values():
            weight.grad = torch.zeros_like(weight)
        self.optimizer.step()
        pairs = zip(before, self.weights.values(), strict=True)
        return [round(1 - (after / earlier)[0, 0].item(), 5) for earlier, after in pairs]


@decoupled_names
def test_decoupled_decay_follows_a_schedule_by_hand(name):
    shrinking = Shrinking(name, lr=0.1)
    for rate, share in ((0.1, 0.01), (0.05, 0.005), (0.0, 0.0), (0.1, 0.01)):
        for group in shrinking.optimizer.param_groups:
            group["lr"] = rate
        assert shrinking.step() == [share, share]


@decoupled_names
def test_decoupled_decay_is_relative_to_each_groups_own_rate(name):
    shrinking = Shrinking(name, lr=0.1, param_rules={"b": {"lr": 0.001}})
    assert shrinking.step() == [0.01, 0.01]
    shrinking.optimizer.param_groups[1]["lr"] = 0.0005
    assert shrinking.step() == [0.01, 0.005]


@decoupled_names
def test_decoupled_decay_follows_a_scheduler_from_an_edited_rate(name):
    shrinking = Shrinking(name, lr=0.1)
    shrinking.optimizer.param_groups[0]["lr"] = 0.02
    scheduler = halving(shrinking.optimizer)
    assert rates(shrinking.optimizer) == [0.02]
    assert shrinking.step() == [0.01, 0.01]
    scheduler.step()
    assert shrinking.step() == [0.005, 0.005]


@decoupled_names
def test_decoupled_decay_resumes_relative_to_the_same_rate(name):
    straight, model = small_model(), small_model()
    arguments = {"decouple_lr": True, "weight_decay": 0.01}
    first = build(name, straight, **arguments)
    optimizer = build(name, model, **arguments)
    for late in (first, optimizer):
        for group in late.param_groups:
            group["lr"] = 0.004
    train(straight, first, range(6))
    train(model, optimizer, range(3))
    fresh, other = resumed(name, model, optimizer, **arguments)
    assert_same(train(fresh, other, range(3, 6)), straight)


@decoupled_names
def test_a_late_group_decays_relative_to_its_own_rate(name):
    shrinking = Shrinking(name, lr=0.1)
    late = nn.Parameter(torch.ones(2, 2))
    shrinking.optimizer.add_param_group({"params": [late], "param_names": ["late"], "lr": 0.5})
    late.grad = torch.zeros_like(late)
    shrinking.step()
    torch.testing.assert_close(late.detach(), torch.full((2, 2), 0.99))
