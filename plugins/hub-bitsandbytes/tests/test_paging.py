"""Paged state, with the part of the GPU played by ordinary memory."""

import warnings
from copy import deepcopy

import bitsandbytes.functional
import pytest
import torch
from bitsandbytes import optim
from bitsandbytes.optim.optimizer import Optimizer8bit
from hub_bitsandbytes import factory
from hub_bitsandbytes.names import ROWS
from torch import nn

import hub
from hub.spec import Level
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import train

from .wrapped import (
    PAGED,
    Model,
    build,
    every_paged_name,
    resumed,
)


@every_paged_name
def test_paged_names_run_on_cpu_without_a_word(name):
    model = nn.Linear(400, 300)
    optimizer = build(name, model)
    model(torch.ones(1, 400)).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    plan = hub.plan(name, model)
    assert [f.level for f in plan.findings if "ordinary memory" in f.what] == [Level.NOTE]


@pytest.mark.parametrize("name", [n for n in ROWS if not ROWS[n].paged])
def test_other_names_say_nothing_about_paging(name):
    assert not hub.plan(name, Model()).findings


@pytest.mark.parametrize("upstream", [ROWS[name].upstream for name in PAGED])
def test_the_upstream_paged_classes_warn_or_fail_on_cpu(upstream):
    model = nn.Linear(400, 300)
    optimizer = getattr(optim, upstream)(model.parameters())
    model(torch.ones(1, 400)).sum().backward()
    with pytest.raises((UserWarning, RuntimeError, NotImplementedError, AssertionError)):
        optimizer.step()


def mark(tensor):
    tensor.is_paged, tensor.page_deviceid = True, 0
    return tensor


@pytest.fixture
def paging(monkeypatch):
    """Have upstream hand out marked buffers on CPU as it does on CUDA; return those it did."""
    pages = []

    def buffer(self, p, dtype=torch.float32):
        pages.append(mark(torch.zeros(p.shape, dtype=dtype)))
        self.page_mng.paged_tensors.append(pages[-1])
        return pages[-1]

    def double(_, p, dtype=torch.float32):
        pages.append(mark(torch.zeros((2, *p.shape), dtype=dtype)))
        return pages[-1]

    monkeypatch.setattr(Optimizer8bit, "get_state_buffer", buffer)
    monkeypatch.setattr(optim.AdEMAMix, "_get_state_double_buffer", double)
    monkeypatch.setattr(factory.Fixes, "_is_paged_on", lambda self, _: self.is_paged)
    monkeypatch.setattr(bitsandbytes.functional, "prefetch_tensor", lambda _: None)
    return pages


def states(optimizer):
    return [
        state[key] for state in optimizer.state.values() for key in factory.BUFFERS if key in state
    ]


def is_among(tensor, others):
    return any(tensor is other for other in others)


@every_paged_name
def test_loaded_and_copied_state_is_paged_again(name, paging):
    straight, model = Model(), Model()
    train(straight, build(name, straight), range(6))
    optimizer = build(name, model)
    train(model, optimizer, range(3))
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    hub.detach(optimizer)
    for fresh, again in (resumed(name, saved), deepcopy((model, optimizer))):
        assert all(is_among(state, paging) for state in states(again))
        assert_same(train(fresh, again, range(3, 6)), straight)


@every_paged_name
@pytest.mark.usefixtures("paging")
def test_saved_state_does_not_say_that_it_is_paged(name):
    model = Model()
    optimizer = build(name, model)
    train(model, optimizer, [0])
    assert all(state.is_paged for state in states(optimizer))
    saved = through_a_file(optimizer.state_dict())
    for state in saved["state"].values():
        for value in factory.unwrapped(state).values():
            assert not hasattr(value, "is_paged")
    assert all(state.is_paged for state in states(optimizer))


@every_paged_name
def test_paged_state_that_upstream_saved_runs_on_cpu(name):
    """A checkpoint of the upstream class from a GPU, with its marks."""
    model = Model()
    optimizer = build(name, model)
    train(model, optimizer, [0])
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        wrapped = state[Optimizer8bit._FSDP_WRAPPED_QUANT_STATE_KEY]
        for key in wrapped:
            wrapped[key] = mark(wrapped[key].clone())
    _, again = resumed(name, through_a_file([model.state_dict(), saved]))
    assert not any(hasattr(state, "is_paged") for state in states(again))


def test_the_upstream_class_takes_the_mark_for_the_thing():
    """When this fails, `Fixes.state_dict` is not needed any more."""
    model = nn.Linear(64, 64)
    optimizer = optim.PagedAdamW8bit(model.parameters())
    optimizer.load_state_dict(
        {
            "state": {0: {"step": 1, "state1": mark(torch.zeros(64, 64, dtype=torch.uint8))}},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
    model(torch.ones(1, 64)).sum().backward()
    with pytest.raises(RuntimeError, match="cprefetch"):
        optimizer.step()


@pytest.mark.usefixtures("paging")
def test_buffers_that_nobody_uses_are_let_go():
    model = Model()
    optimizer = build("paged_adamw_8bit", model)
    train(model, optimizer, [0])
    for _ in range(3):
        optimizer.load_state_dict(optimizer.state_dict())
    kept = optimizer.page_mng.paged_tensors
    assert len(kept) == len(states(optimizer))
    assert all(is_among(state, kept) for state in states(optimizer))
