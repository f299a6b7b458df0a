"""The signals of `grokadamw`, which slow its average down."""

import json
import logging
import math

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import by_file, small_model, train

from .wrapped import Quiet, both_dtypes, build, by_hand

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


def counting():
    """A signal that is another one in every step."""
    calls = iter(range(1000))
    return lambda: next(calls) / 10


@both_dtypes
def test_signal_functions_decide_as_upstreams(dtype):
    ours, theirs, without = small_model(dtype), small_model(dtype), small_model(dtype)
    optimizer = build(ours, grokking_signal_fns=(counting(), lambda: None, lambda: 0.2))
    reference = by_hand(theirs)
    for group in reference.param_groups:  # upstream calls the functions for every group
        group["grokking_signal_fns"] = [counting(), lambda: None, lambda: 0.2]
    assert_same(train(ours, optimizer, range(12)), train(theirs, reference, range(12)))
    assert moved(train(without, build(without), range(12)), weights(ours))


def test_functions_that_abstain_leave_the_rate_alone():
    ours, theirs = small_model(), small_model()
    train(ours, build(ours, grokking_signal_fns=[lambda: None]), range(5))
    assert_same(ours, train(theirs, build(theirs), range(5)))


def test_losses_in_the_groups_decide_as_upstreams_and_are_saved():
    ours, theirs = small_model(), small_model()
    optimizer, reference = build(ours), by_hand(theirs)
    for group in optimizer.param_groups + reference.param_groups:
        group.update(train_loss=0.5, eval_loss=2.0)
    assert_same(train(ours, optimizer, range(5)), train(theirs, reference, range(5)))
    fresh = small_model()
    again = build(fresh)
    by_file((ours, optimizer), (fresh, again))
    assert_same(train(fresh, again, range(5, 9)), train(theirs, reference, range(5, 9)))


@pytest.mark.parametrize("dropped", [False, True], ids=["built with them", "set later"])
def test_signal_functions_outlive_loading(dropped):
    straight, model, fresh = small_model(), small_model(), small_model()
    signals = {"grokking_signal_fns": [lambda: 0.7]}
    train(straight, build(straight, **signals), range(8))
    optimizer = build(model, **signals)
    train(model, optimizer, range(4))
    again = build(fresh, **({} if dropped else signals))
    for group in again.param_groups:
        group.update(signals)
    by_file((model, optimizer), (fresh, again))
    assert_same(train(fresh, again, range(4, 8)), straight)


def signal_of_the_model():
    return 0.1


def test_a_plan_with_functions_is_plain_data():
    plan = hub.plan("grokadamw", small_model(), grokking_signal_fns=[signal_of_the_model])
    arguments = {a["name"]: a["value"] for a in json.loads(json.dumps(plan.to_dict()))["arguments"]}
    (name,) = arguments["grokking_signal_fns"]
    assert name.endswith(".signal_of_the_model")
    assert "<function" not in str(plan)


def test_an_exception_in_a_signal_function_moves_nothing():
    model = small_model()

    def broken():
        raise KeyError("eval_loss")

    optimizer = build(model, grokking_signal_fns=[broken])
    optimizer.param_groups[0]["grokking_signal_fns"] = None
    before = weights(model)
    with pytest.raises(KeyError, match="eval_loss"):
        train(model, optimizer, [0])
    assert not moved(model, before)
    assert not optimizer.state


def test_the_upstream_class_logs_such_an_exception(caplog):
    """When this fails, upstream raises too."""
    model = small_model()
    with caplog.at_level(logging.WARNING):
        train(model, by_hand(model, grokking_signal_fns=[lambda: 1 / 0]), [0])
    assert "Ignoring this function" in caplog.text


def test_a_signal_that_is_not_a_number_moves_nothing():
    model = small_model()
    before = weights(model)
    optimizer = build(model, grokking_signal_fns=[lambda: math.nan])
    with pytest.raises(hub.HubError, match="not a number"):
        train(model, optimizer, [0])
    assert not moved(model, before)


def growth(optimizer, weight):
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return weight.abs().max().item()


def test_a_negative_signal_does_not_diverge():
    model = nn.Linear(2, 2, bias=False)
    optimizer = hub.build("grokadamw", model, grokking_signal_fns=[lambda: -2.0])
    assert growth(optimizer, model.weight) < 2
    assert optimizer.state[model.weight]["grok_ema"].abs().max() == 0


def test_the_upstream_class_diverges_at_a_negative_signal():
    """When this fails, `factory._slow_rate` need not end at 1."""
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Quiet([weight], grokking_signal_fns=[lambda: -2.0])
    growth(optimizer, weight)
    (state,) = optimizer.param_groups[0]["state"].values()
    assert state["grok_ema"].abs().max() > 1e10
