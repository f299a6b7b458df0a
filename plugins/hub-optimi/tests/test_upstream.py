"""`stable_adamw` trains as optimi's class does."""

import copy
import warnings
from dataclasses import replace
from functools import partial

import optimi
import pytest
import torch
from torch import nn
from torch.profiler import profile

from hub.testing.comparing import assert_same
from hub.testing.upstream import equals_class, gradients, small_model, train

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


@pytest.mark.filterwarnings("ignore:.*decouple_lr=True shrinks", "ignore:.*potentially high")
@every_dtype
@implementations
def test_small_tensors_of_one_shape_are_the_upstream_optimizer_too(arguments, dtype):
    alike = replace(WRAPPED, model=partial(small_model, widths=(16,) * 7))
    equals_class(alike, dtype=dtype, steps=12, **arguments)
    equals_class(alike, dtype=dtype, steps=12, decouple_lr=True, weight_decay=0.07, **arguments)


def uneven():
    """Return a model whose weights are alike in shape, and unlike in memory, count and gradient."""
    model = nn.Module()
    torch.manual_seed(0)
    shapes = {"scalar": (), "other": (), "odd": (7, 13), "twin": (7, 13), "turned": (7, 13)}
    shapes |= {"large": (200, 200), "alike": (200, 200), "late": (7, 13), "none": (0, 3)}
    for name, shape in shapes.items():
        model.register_parameter(name, nn.Parameter(torch.randn(shape)))
    model.turned.data = torch.randn(13, 7).T
    return model


def test_tensors_that_are_alike_in_some_ways_are_the_upstream_optimizer():
    ours, theirs = uneven(), uneven()
    optimizer, reference = build(ours), by_hand(theirs)
    for step in range(6):
        for model in (ours, theirs):
            torch.manual_seed(step)
            for name, parameter in model.named_parameters():
                parameter.grad = torch.randn(parameter.shape) * 10 ** torch.randn(()).item()
                if name == "late" and step < 3:
                    parameter.grad = None
        optimizer.step()
        reference.step()
    assert_same(ours, theirs)


@both_dtypes
@pytest.mark.parametrize("widths", [(16,) * 5, (256, 256)], ids=str)
def test_a_step_leaves_gradients_alone(widths, dtype):
    model = small_model(dtype, widths)
    optimizer = build(model)
    gradients(model, 0)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    optimizer.step()
    assert all(
        torch.equal(parameter.grad, grad)
        for parameter, grad in zip(model.parameters(), before, strict=True)
    )


def test_the_upstream_class_overwrites_the_gradients_of_bf16_weights():
    """When this fails, `update._update_one` need not copy them."""
    model = small_model(torch.bfloat16)
    gradients(model, 0)
    before = model[0].weight.grad.clone()
    by_hand(model).step()
    assert not torch.equal(model[0].weight.grad, before)


def test_the_upstream_class_rounds_bf16_otherwise_with_foreach():
    """When this fails, `wrapped.on_cpu` need not choose the implementation."""
    model, other = small_model(torch.bfloat16), small_model(torch.bfloat16)
    for one, foreach in ((model, False), (other, True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            optimizer = optimi.StableAdamW(one.parameters(), lr=0.01, foreach=foreach)
        train(one, optimizer, range(4))
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(model, other)


def test_many_small_tensors_take_few_operations():
    model = small_model(widths=(16,) * 33)
    optimizer = build(model, weight_decay=0.1)
    train(model, optimizer, [0])
    with profile() as seen:
        optimizer.step()
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts["aten::sqrt"] == 4
    assert counts["aten::_local_scalar_dense"] < 10


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
