"""Checkpoints of `grokadamw`, and of grokadamw's class."""

import json

import pytest
import torch
from torch import nn

import hub
from hub.testing.upstream import by_pickle, continues, small_model, train

from .wrapped import build, by_hand


def test_it_resumes_exactly_in_fp64():
    continues(build, build, model=lambda: small_model(torch.float64))


class Parts(nn.Module):
    """Layers that are registered in an order of choice; the last one gets gradients late."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        layers = {"a": nn.Linear(16, 16), "b": nn.Linear(16, 16), "late": nn.Linear(16, 16)}
        for name in order:
            self.add_module(name, layers[name])

    def forward(self, x, late):
        x = self.b(self.a(x).tanh())
        return self.late(x) if late else x


def train_parts(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(4, 16, generator=generator), late=step > 3).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("rules", [None, {"b": {"lr_scale": 1.0}}], ids=["order", "groups"])
def test_another_order_of_parameters_resumes_exactly(rules):
    straight, half = Parts(["a", "b", "late"]), Parts(["a", "b", "late"])
    train_parts(straight, build(straight), range(8))
    optimizer = build(half)
    train_parts(half, optimizer, range(3))
    fresh = Parts(["late", "b", "a"])
    fresh.load_state_dict(half.state_dict())
    again = build(fresh, param_rules=rules)
    assert [g["param_names"] for g in again.param_groups] != [
        g["param_names"] for g in optimizer.param_groups
    ]
    again.load_state_dict(optimizer.state_dict())
    train_parts(fresh, again, range(3, 8))
    for name, expected in straight.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], expected), name


def test_the_upstream_class_starts_again_when_it_resumes():
    """When this fails, upstream's state may be where torch looks for it."""
    with pytest.raises(AssertionError, match="differs by"):
        continues(by_hand, by_hand, hand_over=by_pickle)


def test_state_dicts_have_upstreams_keys_and_no_functions():
    model = small_model()
    optimizer = build(model, grokking_signal_fns=[lambda: 0.5])
    train(model, optimizer, [0])
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        assert set(state) == {"step", "place", "exp_avg", "exp_avg_sq", "grok_ema"}
    json.dumps(saved["param_groups"])


def test_a_checkpoint_of_the_upstream_class_is_refused():
    model = small_model()
    reference = by_hand(model)
    train(model, reference, [0])
    optimizer = build(model)
    with pytest.raises(hub.CheckpointError, match="parameters that are gone"):
        optimizer.load_state_dict(reference.state_dict())
    assert not optimizer.state
