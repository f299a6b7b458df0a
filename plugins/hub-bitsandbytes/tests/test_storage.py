"""Where bitsandbytes keeps weights, gradients and pages, and what it shares with others."""

import bitsandbytes.functional
import pytest
import torch
from bitsandbytes import optim
from bitsandbytes.optim.optimizer import GlobalOptimManager
from torch import nn

from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import gradients, train

from .wrapped import (
    Model,
    bits,
    both_dtypes,
    build,
    by_hand,
    every_8bit_name,
    every_name,
    narrow_weights,
    quiet_upstream,
    resumed,
)

pytestmark = narrow_weights


def transposed(model):
    """Store two weights, one of them with 8-bit state, by columns."""
    for layer in (model.up, model.head):
        layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    return model


def step_both(straight, other, optimizers, step):
    gradients(straight, step)
    for parameter, like in zip(other.parameters(), straight.parameters(), strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(like.grad)
    for optimizer in optimizers:
        optimizer.step()


@both_dtypes
@every_name
def test_weights_that_are_not_contiguous_stay_where_and_as_they_are(name, dtype):
    straight, other = Model(dtype), transposed(Model(dtype))
    place = {key: (p.data_ptr(), p.stride()) for key, p in other.named_parameters()}
    optimizers = [build(name, model) for model in (straight, other)]
    for step in range(3):
        step_both(straight, other, optimizers, step)
    assert {key: (p.data_ptr(), p.stride()) for key, p in other.named_parameters()} == place
    assert_same(straight, other)
    assert set(optimizers[1].state) == set(other.parameters())
    for state in optimizers[1].state.values():  # CUDA kernels know no strides
        assert all(v.is_contiguous() for v in state.values() if isinstance(v, torch.Tensor))
    saved = through_a_file([other.state_dict(), optimizers[1].state_dict()])
    fresh, again = resumed(name, saved, dtype)  # contiguous now
    step_both(straight, other, optimizers, 3)
    assert_same(train(fresh, again, [3]), straight)


def test_gradients_that_are_not_contiguous_stay_what_they_are():
    model, other = Model(), Model()
    gradients(model, 0)
    gradients(other, 0)
    grad = model.up.weight.grad = model.up.weight.grad.t().contiguous().t()
    place = model.up.weight.data_ptr()
    build("adamw_8bit", model).step()
    build("adamw_8bit", other).step()
    assert model.up.weight.grad is grad
    assert model.up.weight.data_ptr() == place
    assert_same(model, other)


def test_the_upstream_classes_move_weights_that_are_not_contiguous():
    model = transposed(Model())
    place = model.up.weight.data_ptr()
    train(model, optim.AdamW8bit(model.parameters()), [0])
    assert model.up.weight.data_ptr() != place


def test_a_failing_kernel_leaves_no_stand_in(monkeypatch):
    model = transposed(Model())
    optimizer = build("adamw_8bit", model)
    gradients(model, 0)

    def fail(*_, **__):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(bitsandbytes.functional, "optimizer_update_8bit_blockwise", fail)
    with pytest.raises(RuntimeError, match="no kernel"):
        optimizer.step()
    assert set(optimizer.state) <= set(model.parameters())


def overridden_neighbour():
    """A upstream optimizer whose first parameter is overridden, as users of bitsandbytes do it."""
    neighbour = nn.Linear(64, 64)
    manager = GlobalOptimManager.get_instance()
    manager.register_module_override(neighbour, "weight", {"optim_bits": 32})
    optimizer = optim.AdamW8bit(neighbour.parameters())
    neighbour(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    return neighbour


def test_overrides_of_other_optimizers_do_not_leak_in():
    neighbour = overridden_neighbour()
    model = Model()
    optimizer = build("adamw_8bit", model, embeddings_32bit=False)
    train(model, optimizer, [0])
    assert "embed.weight" in bits(model, optimizer)
    del neighbour


def test_the_upstream_classes_apply_the_overrides_of_others():
    """When this fails, an own manager is not needed any more."""
    neighbour = overridden_neighbour()
    model = Model()
    optimizer = by_hand("adamw_8bit", model)
    train(model, optimizer, [0])
    assert "embed.weight" not in bits(model, optimizer)
    del neighbour


@every_8bit_name
@quiet_upstream
def test_nothing_is_registered_for_others(name):
    model, other = Model(), Model()
    train(model, build(name, model), range(2))
    manager = GlobalOptimManager.get_instance()
    assert not manager.pid2config
    assert not manager.index2config
    assert not manager.module_weight_config_triple
    upstream = by_hand(name, other)
    train(other, upstream, [0])
    assert "embed.weight" in bits(other, upstream)
