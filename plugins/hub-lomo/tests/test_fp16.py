"""fp16 weights, whose loss `fused_backward` scales."""

import math

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, through_a_file, weights

from .wrapped import build, every_name

SMALL = 2.0**-26
"""Of a gradient that fp16 rounds to nothing."""


def half(name, **arguments):
    model = nn.ParameterDict({"weight": torch.ones(4, 4, dtype=torch.float16)})
    return model, build(name, model, **arguments)


def scaling(optimizer):
    group = optimizer.state_dict()["param_groups"][0]
    return group["loss_scale"], group.get("loss_scale_steps", 0)


@pytest.mark.parametrize(
    ("arguments", "moves"), [({}, True), ({"loss_scale": None}, False)], ids=["scaled", "unscaled"]
)
def test_small_gradients_count_where_the_loss_is_scaled(arguments, moves):
    model, optimizer = half("lomo", **arguments)
    optimizer.fused_backward((model["weight"] * SMALL).sum(), 2.0**20)
    expected = 1 - SMALL * 2.0**20 if moves else 1.0
    assert model["weight"].unique().tolist() == [expected]


@every_name
@pytest.mark.parametrize(
    "clip",
    [
        {},
        {"clip_grad_value": 2.0**-4},
        {"clip_grad_value": 2.0**6},  # beyond fp16 when it is scaled
        {"max_grad_norm": 0.125, "clipping": "exact"},
        {"max_grad_norm": 0.125, "clipping": "per_parameter"},
    ],
    ids=["unclipped", "value", "large value", "exact", "per_parameter"],
)
def test_the_scale_does_not_show_in_the_update(name, clip):
    models = []
    for scale in (1.0, 2.0**12, None):
        model, optimizer = half(name, **clip, loss_scale=scale)
        for _ in range(3):
            optimizer.fused_backward(model["weight"].float().square().sum() / 4, 0.5)
        models.append(model)
    assert_same(models[0], models[1])
    assert_same(models[0], models[2])
    assert hub.grad_norm(optimizer) < 2.0


@every_name
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(name):
    model, optimizer = half(name, loss_scale=2.0**15, loss_scale_window=2)
    before = weights(model)
    seen = []
    for factor in (8.0, 4.0, 1.0, 1.0, 1.0):
        optimizer.fused_backward((model["weight"] * factor).sum())
        seen.append((scaling(optimizer), bool(moved(model, before))))
    assert seen == [
        ((2.0**14, 0), False),
        ((2.0**13, 0), False),
        ((2.0**13, 1), True),
        ((2.0**14, 0), True),
        ((2.0**14, 1), True),
    ]
    _, other = half(name, loss_scale=2.0**15, loss_scale_window=2)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    assert scaling(other) == (2.0**14, 1)


@every_name
def test_gradients_that_no_scale_helps_are_an_error(name):
    model, optimizer = half(name, loss_scale=1.0)
    before = weights(model)
    with pytest.raises(hub.HubError, match="even without loss scaling"):
        optimizer.fused_backward((model["weight"] * math.inf).sum())
    assert not moved(model, before)


@every_name
def test_what_cannot_scale_the_loss_is_refused(name):
    model, optimizer = half(name)
    before = weights(model)
    with pytest.raises(hub.HubError, match="does not scale the loss"):
        model["weight"].sum().backward()
    hub.detach(optimizer)
    _, optimizer = half(name, gradient_accumulation_steps=2)
    with pytest.raises(hub.UnsupportedError, match="micro-batches"):
        optimizer.fused_backward(model["weight"].sum())
    assert not moved(model, before)


@every_name
def test_plain_backward_trains_unscaled_where_that_is_asked_for(name):
    model, optimizer = half(name, loss_scale=None)
    before = weights(model)
    model["weight"].sum().backward()
    optimizer.step()
    assert moved(model, before)


@every_name
def test_the_measured_norm_is_that_of_the_unscaled_loss(name):
    model, optimizer = half(name)
    norm = optimizer.grad_norm((model["weight"] * SMALL).sum())
    assert norm == pytest.approx(4 * SMALL)
