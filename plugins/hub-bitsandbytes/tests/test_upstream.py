"""The bitsandbytes names train as bitsandbytes' classes do."""

from functools import cache

import pytest
import torch
from bitsandbytes import optim
from hub_bitsandbytes import hooks
from hub_bitsandbytes.names import ADEMAMIX, ROWS
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import equals_class, gradients, train

from .wrapped import (
    BF16,
    DTYPES,
    FP16,
    FP32,
    OF_ADEMAMIX,
    SCHEDULED,
    WRAPPED,
    Model,
    bits,
    both_dtypes,
    build,
    by_hand,
    every_8bit_name,
    every_name,
    narrow_weights,
    plainly,
    quiet_upstream,
)

pytestmark = narrow_weights


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_name
@quiet_upstream
def test_it_is_the_upstream_optimizer(name, dtype):
    ours, theirs = equals_class(WRAPPED[name], dtype=dtype, steps=6, ours=plainly(name))
    assert type(ours[1]).__name__ == type(theirs[1]).__name__
    assert bits(*ours) == bits(*theirs)


@pytest.mark.parametrize("name", OF_ADEMAMIX)
@both_dtypes
@quiet_upstream
def test_schedules_of_ademamix_are_upstreams(name, dtype):
    (scheduled, _), _ = equals_class(WRAPPED[name], dtype=dtype, ours=plainly(name), **SCHEDULED)
    constant = Model(dtype)
    train(constant, build(name, constant, **plainly(name)), range(8))
    assert moved(constant, weights(scheduled))


@every_8bit_name
@quiet_upstream
def test_embeddings_keep_32_bit_state_as_upstream_would_have_it(name):
    ours, theirs = Model(), Model()
    optimizer, reference = build(name, ours), by_hand(name, theirs)
    reference.mng.override_config(theirs.embed.weight, "optim_bits", 32)
    assert_same(train(ours, optimizer, range(4)), train(theirs, reference, range(4)))
    assert bits(ours, optimizer) == {"up.weight", "down.weight"}


@every_8bit_name
def test_min_8bit_size_is_reachable(name):
    model = Model()
    optimizer = build(name, model, min_8bit_size=9000, embeddings_32bit=False)
    train(model, optimizer, [0])
    assert bits(model, optimizer) == set()
    model = Model()
    optimizer = build(name, model, min_8bit_size=0, embeddings_32bit=False)
    train(model, optimizer, [0])
    fill_blocks = {"embed.weight", "up.weight", "down.weight"}
    everything = {key for key, _ in model.named_parameters()}
    expected = fill_blocks if ROWS[name].family is ADEMAMIX else everything
    assert bits(model, optimizer) == expected


def test_an_embedding_whose_parameter_is_replaced_keeps_32_bit_state():
    """As Accelerate and FSDP2 replace the parameters of a model."""
    model = Model()
    optimizer = build("adamw_8bit", model)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(p.detach().clone()) for p in group["params"]]
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            module, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(module), attribute, parameter)
    train(model, optimizer, [0])
    assert bits(model, optimizer) == {"up.weight", "down.weight"}


def test_a_tied_and_a_late_embedding_keep_32_bit_state_too():
    model = Model()
    model.unembed = nn.Linear(64, 80, bias=False)
    model.unembed.weight = model.embed.weight
    model.late = nn.Embedding(80, 64).requires_grad_(requires_grad=False)
    optimizer = build("adamw_8bit", model)
    model.late.requires_grad_(requires_grad=True)
    optimizer.add_param_group({"params": [model.late.weight], "param_names": ["late.weight"]})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert bits(model, optimizer) == {"up.weight", "down.weight"}


def test_ademamix_keeps_32_bit_state_where_blocks_are_not_full():
    """Where the CUDA kernel of bitsandbytes 0.50.2 puts the scales of the blocks of each average.

    Read in its source and in the code of `libbitsandbytes_cuda118.so`, not run.
    """
    elements = 64 * 70
    fast = {i // hooks.BLOCK for i in range(0, elements, hooks.BLOCK)}
    slow = {(elements + i) // hooks.BLOCK for i in range(0, elements, hooks.BLOCK)}
    assert fast & slow
    model = nn.Linear(64, 70)
    optimizer = hub.build("ademamix_8bit", model)
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    assert bits(model, optimizer) == set()


@pytest.mark.parametrize("upstream", ["AdEMAMix32bit", "PagedAdEMAMix32bit"])
@quiet_upstream
def test_the_upstream_32bit_classes_of_ademamix_are_broken(upstream):
    """When this fails, the rows may name these classes."""
    model = Model()
    with pytest.raises(RuntimeError, match="shape"):
        train(model, getattr(optim, upstream)(model.parameters()), [0])


@cache
def loss_after(name, dtype):
    model = Model(dtype)
    train(model, build(name, model), range(20))
    return gradients(model, 99)


@pytest.mark.parametrize("dtype", [BF16, FP16], ids=str)
@every_name
def test_half_precision_weights_learn_as_fp32_ones_do(name, dtype):
    expected = loss_after(name, FP32)
    assert expected < 0.6 * gradients(Model(), 99)
    assert loss_after(name, dtype) == pytest.approx(expected, rel=0.15)


def test_the_upstream_classes_round_fp64_weights_to_fp32():
    model = Model(torch.float64)
    train(model, optim.AdamW(model.parameters()), range(2))
    assert torch.equal(model.up.weight, model.up.weight.float().double())


def test_the_decay_of_rmsprop_is_torchs():
    ours, theirs = Model(), Model()
    first = hub.build("rmsprop_bnb", ours, lr=0.003, weight_decay=0.5)
    second = hub.build("rmsprop", theirs, lr=0.003, weight_decay=0.5)
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    for step in range(5):
        gradients(ours, step)
        for parameter, other in pairs:  # the same, as the sum of a matrix product is not elsewhere
            other.grad = parameter.grad.clone()
        first.step()
        second.step()
    for parameter, other in pairs:
        # Each of five steps rounds the weight once, and an update of 0.03 at most some five times.
        torch.testing.assert_close(parameter, other, rtol=5 * 2**-24, atol=5 * 5 * 0.03 * 2**-24)
