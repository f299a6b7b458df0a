"""The step of `galore_adamw_8bit`, which is hub's own: upstream's needs CUDA and is wrong."""

import galore_torch
import pytest
import torch
from torch import nn

from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import gradients, groups_of, train

from .wrapped import LOW_RANK, build, make_model


def test_the_upstream_8bit_class_freezes_small_state_and_zero_biases():
    """When this fails, `factory.GaLoreAdamW8bit` may not be needed any more."""
    model = make_model()
    nn.init.zeros_(model[3].bias)
    before = weights(model)
    low_rank = ["0.weight", "2.weight"], LOW_RANK
    optimizer = galore_torch.GaLoreAdamW8bit(groups_of(model, low_rank), lr=0.01, weight_decay=0.0)
    train(model, optimizer, range(5))
    assert not moved(model, before) & {"0.weight", "2.weight", "3.bias"}


def test_the_8bit_step_leaves_weights_gradients_and_groups_in_place():
    model = make_model()
    optimizer = build("galore_adamw_8bit", model)
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    attributes = {name: set(vars(p)) for name, p in model.named_parameters()}
    gradients(model, 0)
    kept = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()}
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == places[name]
        assert set(vars(parameter)) == attributes[name]
        assert parameter.grad is kept[name][0]
        assert torch.equal(parameter.grad, kept[name][1])
    assert settings == [
        {k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups
    ]
    assert set(optimizer.state) == set(model.parameters())


def test_the_8bit_step_keeps_the_layout_of_weights_that_are_not_contiguous():
    straight, transposed = make_model(), make_model()
    weight = transposed[3].weight = nn.Parameter(transposed[3].weight.detach().t().contiguous().t())
    place, strides = weight.data_ptr(), weight.stride()
    optimizers = [build("galore_adamw_8bit", model) for model in (straight, transposed)]
    for step in range(3):
        gradients(straight, step)
        for parameter, other in zip(transposed.parameters(), straight.parameters(), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(other.grad)
        for optimizer in optimizers:
            optimizer.step()
    assert (weight.data_ptr(), weight.stride()) == (place, strides)
    assert_same(straight, transposed)


def test_the_8bit_step_leaves_no_trace_when_bitsandbytes_fails(monkeypatch):
    model = make_model()
    optimizer = build("galore_adamw_8bit", model)
    gradients(model, 0)

    def fail(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(optimizer, "update_step", fail)
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is model[0].weight]
    before = weights(model)
    with pytest.raises(RuntimeError, match="no kernel"):
        optimizer.step()
    assert not moved(model, before)
    assert set(optimizer.state) <= set(model.parameters())


def test_bitsandbytes_does_not_decay_projected_updates(monkeypatch):
    # Its CPU kernels decay first, here a zero, so that no weight would show the mistake.
    model, seen = make_model(), {}
    optimizer = build("galore_adamw_8bit", model)
    update_step = optimizer.update_step

    def spy(group, tensor, *at):
        seen[tuple(tensor.shape)] = group["weight_decay"]
        update_step(group, tensor, *at)

    monkeypatch.setattr(optimizer, "update_step", spy)
    train(model, optimizer, [0])
    assert seen == {(128, 4): 0.0, (4, 128): 0.0, (3, 64): 0.1, (128,): 0.0, (64,): 0.0, (3,): 0.0}


def test_min_8bit_size_decides_on_the_projected_size():
    model = make_model()
    optimizer = build("galore_adamw_8bit", model, min_8bit_size=256)
    train(model, optimizer, [0])
    dtypes = {key: optimizer.state[p]["state1"].dtype for key, p in model.named_parameters()}
    small = {key for key, dtype in dtypes.items() if dtype == torch.float32}
    assert small == set(dtypes) - {"0.weight", "2.weight"}
