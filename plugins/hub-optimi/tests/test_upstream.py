"""`stable_adamw` trains as optimi's class does."""

import copy

import optimi
import pytest
import torch
from torch import nn

from hub.testing.comparing import assert_same
from hub.testing.upstream import equals_class, small_model, train

from .wrapped import (
    WRAPPED,
    both_dtypes,
    build,
    by_hand,
    every_dtype,
    implementations,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@every_dtype
@implementations
def test_it_is_the_upstream_optimizer(arguments, dtype):
    equals_class(WRAPPED, dtype=dtype, steps=12, **arguments)


@both_dtypes
def test_groups_may_have_their_own_arguments(dtype):
    rule = {"lr": 0.1, "betas": (0.5, 0.6), "eps": 1e-5, "weight_decay": 0.3, "kahan_sum": False}
    settings = {key: value for key, value in rule.items() if key != "betas"}
    settings |= {"beta1": 0.5, "beta2": 0.6}
    own, ours = [(["2.weight"], settings)], {"param_rules": {r"2\.weight": rule}}
    equals_class(WRAPPED, dtype=dtype, own=own, ours=ours)


def test_small_updates_of_bf16_weights_are_not_lost():
    exact = nn.Linear(4, 4, bias=False)
    nn.init.ones_(exact.weight)
    half = copy.deepcopy(exact).bfloat16()
    for model in (exact, half):
        optimizer = build(model, lr=1e-3, weight_decay=0.0)
        for _ in range(20):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
    assert 0.015 < 1 - exact.weight[0, 0] < 0.025
    torch.testing.assert_close(half.weight.float(), exact.weight, atol=2**-8, rtol=0)


def test_the_upstream_class_overshoots_with_fp16_weights():
    """When this fails, fp16 may be declared."""
    weight = nn.Parameter(torch.ones(4, dtype=torch.float16))
    weight.grad = torch.tensor([1e-4, 0.0, 0.0, 0.0]).half()
    optimi.StableAdamW([weight], lr=1e-3, triton=False, weight_decay=0.0).step()
    assert weight[0] < 0.92


def test_betas_of_the_group_are_followed():
    ours, theirs = small_model(), small_model()
    optimizer, reference = build(ours), by_hand(theirs)
    train(ours, optimizer, range(2))
    train(theirs, reference, range(2))
    for group in optimizer.param_groups:
        group["betas"] = (0.5, 0.95)
    for group in reference.param_groups:
        group["beta1"] = 0.5
    assert_same(train(ours, optimizer, range(2, 5)), train(theirs, reference, range(2, 5)))


def test_onecyclelr_cycles_betas():
    model = small_model()
    optimizer = build(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    seen = set()
    for step in range(8):
        train(model, optimizer, [step])
        schedule.step()
        seen.add(optimizer.param_groups[0]["beta1"])
    assert len(seen) > 5


def test_the_upstream_class_has_no_betas_to_cycle():
    """When this fails, `group["betas"]` need not be ours any more."""
    optimizer = by_hand(small_model())
    with pytest.raises(ValueError, match="momentum or beta1"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
