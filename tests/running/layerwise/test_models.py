"""What models do to their graphs: checkpointing, tying, compiling, moving."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import hub
from hub.testing.comparing import assert_same
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import backward

NAMES = ("adamw_torch", "adamw_torch_layerwise")


class Recomputing(nn.Module):
    """Blocks under activation checkpointing, `uses` times each."""

    def __init__(self, uses=1, **how):
        super().__init__()
        self.model = make_model()
        self.uses, self.how = uses, how

    def forward(self, tokens):
        x = self.model.embed(tokens)
        for _ in range(self.uses):
            for block in self.model.blocks:
                x = checkpoint(block, x, **self.how)
        return self.model.head(self.model.out(x))


def trained(name, model, steps=3, **arguments):
    optimizer = hub.build(name, model, lr=1e-2, **arguments)
    for step in range(steps):
        loss_of(model, batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_activation_checkpointing(reentrant, accumulation):
    models = []
    for name in NAMES:
        model = Recomputing(use_reentrant=reentrant)
        optimizer = hub.build(name, model, lr=1e-2, gradient_accumulation_steps=accumulation)
        for step in range(3):
            for tokens in batch(step).chunk(accumulation):
                loss_of(model, tokens).backward()
            optimizer.step()
            optimizer.zero_grad()
        models.append(model)
    assert_same(*models)


def test_a_layer_used_twice_under_checkpointing():
    """In one graph its gradient comes once; reentrant segments are graphs of their own."""
    eager, inside = (trained(name, Recomputing(2, use_reentrant=False)) for name in NAMES)
    assert_same(eager, inside)
    with pytest.raises(hub.UnsupportedError, match="already updated") as raised:
        trained(NAMES[1], Recomputing(2, use_reentrant=True))
    assert "use_reentrant=False" in raised.value.fix


def test_a_tied_weight_is_updated_once_after_its_last_use():
    eager, inside = (trained(name, make_model()) for name in NAMES)
    assert eager.head.weight is eager.embed.weight
    assert_same(eager, inside)


def test_moving_the_model_between_build_and_first_step():
    models = []
    for name in NAMES:
        model = make_model()
        optimizer = hub.build(name, model, lr=1e-2)
        model.to(torch.float64)
        for step in range(2):
            backward(model, step)
            optimizer.step()
            optimizer.zero_grad()
        models.append(model)
    assert_same(*models)


def test_a_compiled_model():
    """Traced by torch.compile, with its eager backend: what hooks see is the same."""
    models = []
    for name in NAMES:
        model = make_model()
        optimizer = hub.build(name, model, lr=1e-2)
        compiled = torch.compile(model, backend="aot_eager")
        for step in range(2):
            loss_of(compiled, batch(step)).backward()
            optimizer.step()
            optimizer.zero_grad()
        models.append(model)
    assert_same(*models)


def test_sparse_gradients():
    models = []
    for name in ("sgd", "sgd_layerwise"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 3))
        optimizer = hub.build(name, model, lr=0.1)
        model(torch.tensor([1, 1, 3])).sum().backward()
        optimizer.step()
        assert name == "sgd" or hub.grad_norm(optimizer) > 0
        models.append(model)
    assert_same(*models)


def test_scalars_and_convolutions():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.conv(x) * self.scale

    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(2, 1, 5, 5)
    models = [copy.deepcopy(model), model]
    for name, one in zip(NAMES, models, strict=True):
        optimizer = hub.build(name, one, lr=0.1)
        for _ in range(3):
            one(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert_same(*models)
