"""`max_grad_norm` under a GradScaler, which leaves the unscaling to fused optimizers."""

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

import hub
from hub.testing.comparing import assert_same, weights
from hub.testing.kit_model import batch, loss_of, make_model

STEPS, OVERFLOWS = 20, 7
CLIP, LOSS = 1.0, 100.0
"""Trainers' default limit, and what makes the norm of every step larger."""
BUILT = {
    "adamw_torch": lambda model, **limit: hub.build("adamw_torch", model, lr=1e-2, **limit),
    "adamw_torch_fused": lambda model, **limit: hub.build(
        "adamw_torch_fused", model, lr=1e-2, **limit
    ),
    "sgd fused": lambda model, **limit: hub.build("sgd", model, lr=0.5, fused=True, **limit),
    "adagrad fused": lambda model, **limit: hub.build(
        "adagrad", model, lr=1e-2, fused=True, **limit
    ),
    "fp16 from a trainer": lambda model, max_grad_norm=0.0: hub.create_optimizer(
        # What a trainer that asks for nothing else gets: fused AdamW, clipped to 1.
        model,
        {"fp16": True} if max_grad_norm == CLIP else {"fp16": True, "max_grad_norm": 0.0},
    ),
}


def train(model, optimizer, before_step=lambda *_: None):
    """Train under fp16 autocast and a scaler; one step overflows. Return the scales."""
    scaler = torch.amp.GradScaler("cpu")
    scales = []
    for step in range(STEPS):
        with torch.autocast("cpu", torch.float16):
            loss = LOSS * loss_of(model, batch(step))
        scaler.scale(loss * (torch.inf if step == OVERFLOWS else 1)).backward()
        before_step(scaler, optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        scales.append(scaler.get_scale())
    return scales


def unscale_and_clip(scaler, optimizer):
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = clip_grad_norm_(parameters, CLIP)
    assert norm > CLIP or norm.isnan()  # the overflow


@pytest.mark.parametrize("case", BUILT)
def test_max_grad_norm_is_unscale_and_clip(case):
    """To the last bit: scales are powers of two, and no number here leaves their range."""
    ours, theirs, unclipped = make_model(), make_model(), make_model()
    scales = train(ours, BUILT[case](ours, max_grad_norm=CLIP))
    train(theirs, BUILT[case](theirs), unscale_and_clip)
    train(unclipped, BUILT[case](unclipped))
    assert scales[OVERFLOWS] == scales[OVERFLOWS - 1] / 2
    assert_same(ours, theirs)
    assert not torch.equal(ours.embed.weight, unclipped.embed.weight)


def test_an_overflow_leaves_the_weights_as_they_are():
    model = make_model()
    optimizer = BUILT["adamw_torch_fused"](model, max_grad_norm=CLIP)
    before = weights(model)
    scaler = torch.amp.GradScaler("cpu")
    (scaler.scale(loss_of(model, batch(0))) * torch.inf).backward()
    scaler.step(optimizer)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
