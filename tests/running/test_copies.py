"""Copies of an optimizer are refused: they would lose what hub added to it."""

import copy
import io
import pickle

import pytest
import torch
from helpers.every_name import NAMES, PRECISIONS

import hub
from hub.testing import Subject
from hub.testing.comparing import assert_same
from hub.testing.subject import train

FORMS = [*NAMES, "adamw_torch_layerwise", "galore_adamw_layerwise"]
COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": pickle.dumps,
    "python's pickle": lambda value: pickle._Pickler(io.BytesIO()).dump(value),
    "torch.save": lambda value: torch.save(value, io.BytesIO()),
    "with the model": lambda value: copy.deepcopy([value]),
}


@pytest.mark.parametrize("name", FORMS)
def test_copies_are_refused_with_the_fix(name):
    model, optimizer = Subject(name, PRECISIONS.get(name, "fp32")).start(max_grad_norm=None)
    train(model, optimizer, 1)
    for make in COPIES.values():
        with pytest.raises(hub.UnsupportedError, match=f"copy of {name}") as caught:
            make(optimizer)
        assert "build a new one for the copied model" in caught.value.fix
    copy.deepcopy(model)
    train(model, optimizer, 1, start=1)


def test_a_detached_optimizer_is_copied_as_its_class_does():
    model, optimizer = Subject("adamw_torch").start(max_grad_norm=1.0)
    train(model, optimizer, 2)
    hub.detach(optimizer)
    for twin, other in (
        copy.deepcopy((model, optimizer)),
        pickle.loads(pickle.dumps((model, optimizer))),
    ):
        assert type(other) is torch.optim.AdamW
        straight, plain = copy.deepcopy((model, optimizer))
        train(straight, plain, 2, start=2)
        train(twin, other, 2, start=2)
        assert_same(straight, twin)


def test_the_fix_that_is_named_keeps_every_promise():
    model, optimizer = Subject("schedule_free_adamw").start(max_grad_norm=0.1)
    train(model, optimizer, 2)
    saved = optimizer.state_dict()
    twin = copy.deepcopy(model)
    other = Subject("schedule_free_adamw").build(twin, max_grad_norm=0.1)
    other.load_state_dict(saved)
    train(model, optimizer, 2, start=2)
    train(twin, other, 2, start=2)
    assert_same(model, twin)
    with hub.eval_mode(optimizer), hub.eval_mode(other):
        assert_same(model, twin)
