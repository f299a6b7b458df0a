"""Checkpoints and copies of the bitsandbytes names, and of bitsandbytes' classes."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from bitsandbytes import optim
from hub_bitsandbytes import factory
from hub_bitsandbytes.names import ROWS

import hub
from hub.testing.upstream import continues, train

from .wrapped import (
    OF_ADEMAMIX,
    SCHEDULED,
    WRAPPED,
    Model,
    bits,
    both_dtypes,
    build,
    every_name,
    narrow_weights,
    plainly,
    quiet_upstream,
)

pytestmark = narrow_weights


@pytest.mark.parametrize("name", OF_ADEMAMIX)
@both_dtypes
def test_schedules_of_ademamix_resume_exactly(name, dtype):
    builds = [WRAPPED[name].build] * 3
    continues(*builds, model=partial(Model, dtype), steps=3, **SCHEDULED)


@every_name
@quiet_upstream
def test_checkpoints_go_to_and_from_the_upstream_class(name):
    theirs, ours = WRAPPED[name].by_hand, partial(WRAPPED[name].build, **plainly(name))
    continues(theirs, ours, theirs, model=Model, steps=2)


@pytest.mark.parametrize(
    ("saved_by", "loaded_by"),
    [(n, row.shares_state_with) for n, row in ROWS.items() if row.shares_state_with],
)
def test_names_with_one_kind_of_state_share_checkpoints(saved_by, loaded_by):
    continues(WRAPPED[saved_by].build, WRAPPED[loaded_by].build, model=Model)


def foreign(kind):
    """Return the state dict of another optimizer, as its own class saves it."""
    model = Model()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim < 2]},
    ]
    optimizer = (
        torch.optim.AdamW(groups) if kind == "torch" else getattr(optim, kind)(groups, lr=0.01)
    )
    train(model, optimizer, [0])
    return optimizer.state_dict()


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "says"),
    [
        ("torch", "adamw_8bit", {}, "exp_avg"),
        ("torch", "lion_32bit", {}, "exp_avg"),
        ("AdamW8bit", "paged_adamw_32bit", {}, "8-bit state, where 32-bit"),
        ("AdamW", "adamw_8bit", {}, "32-bit state, where 8-bit"),
        ("AdamW8bit", "adamw_8bit", {}, "8-bit state, where 32-bit"),  # of the embedding
        ("AdamW8bit", "adamw_8bit", {"min_8bit_size": 6000}, "8-bit state, where 32-bit"),
        ("Lion8bit", "adamw_8bit", {"embeddings_32bit": False}, "state1, state2 is needed"),
        ("AdamW8bit", "lion_8bit", {"embeddings_32bit": False}, "where state1 is needed"),
        ("AdamW", "ademamix", {}, r"a group has betas=\(0.9, 0.999\), .* 3 values"),
        ("AdEMAMix", "paged_adamw_32bit", {}, r"a group has betas=.*, .* 2 values"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(kind, name, arguments, says):
    model = Model()
    optimizer = build(name, model, **arguments)
    train(model, optimizer, [0])
    before = deepcopy(optimizer.state_dict())
    with pytest.raises(hub.CheckpointError, match=says) as refused:
        optimizer.load_state_dict(foreign(kind))
    assert "weight" in refused.value.where or "group" in says
    assert torch.equal(
        factory.unwrapped(optimizer.state_dict()["state"][1])["state1"],
        factory.unwrapped(before["state"][1])["state1"],
    )


def test_the_upstream_classes_take_or_break_on_checkpoints_of_another_kind():
    with pytest.raises(KeyError, match="state1"):
        load_and_step(optim.AdamW, "torch")
    _, optimizer = load_and_step(optim.AdamW, "AdamW8bit")
    assert {s["state1"].dtype for s in optimizer.state.values()} == {torch.uint8, torch.float32}


def load_and_step(upstream, kind):
    model = Model()
    optimizer = upstream(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim < 2]},
        ]
    )
    optimizer.load_state_dict(foreign(kind))
    return train(model, optimizer, [1]), optimizer


def test_other_bits_are_refused_by_argument():
    model = Model()
    optimizer = build("adamw_8bit", model)
    train(model, optimizer, [0])
    other = build("adamw_8bit", Model(), embeddings_32bit=False)
    with pytest.raises(hub.CheckpointError, match="embeddings_32bit"):
        other.load_state_dict(optimizer.state_dict())


def test_a_copy_has_its_own_manager_and_the_same_bits():
    model = Model()
    optimizer = build("adamw_8bit", model)
    train(model, optimizer, range(3))
    hub.detach(optimizer)
    other, copy = deepcopy((model, optimizer))
    assert copy.mng is not optimizer.mng
    assert bits(other, copy) == bits(model, optimizer)


def test_a_copy_of_the_upstream_class_does_not_step():
    """When this fails, `Fixes.__getstate__` is not needed any more."""
    model = Model()
    other, copy = deepcopy((model, optim.AdamW8bit(model.parameters())))
    with pytest.raises(AttributeError, match="initialized"):
        train(other, copy, [0])
