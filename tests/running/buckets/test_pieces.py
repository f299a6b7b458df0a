"""Large parameters that are stepped in pieces: as if they were stepped as a whole."""

import pytest
import torch
from torch import nn

import hub
from hub.measuring import plain_tensors
from hub.running.buckets import rounded, sizes
from hub.running.buckets.pieces import can_be_cut
from hub.running.buckets.rounding import BITS, fp32_copy
from hub.running.stand_ins import StandIn

PIECE = 96
"""Whole vectors of a processor, as real pieces are: fused kernels round the rest otherwise."""
SHAPES = [(61, 67), (PIECE,), (3, 5, 7), (2 * PIECE + 1,)]
CASES = {
    "adamw_torch": {"amsgrad": True},
    "adamw_torch_fused": {},
    "adagrad": {},
    "rmsprop": {"momentum": 0.9, "centered": True},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "lomo": {},
    "sgd_layerwise": {"momentum": 0.9},
}
"""Arguments with which each has all of its state, by name."""


@pytest.fixture(autouse=True)
def cut(monkeypatch):
    """Make pieces small, and return the sizes of all that are stepped."""
    monkeypatch.setattr(sizes, "CACHED", PIECE)
    seen = []
    step = rounded.RoundedStep._step

    def counted(self, optimizer, items):
        seen.extend(item.tensor.numel() for item in items)
        step(self, optimizer, items)

    monkeypatch.setattr(rounded.RoundedStep, "_step", counted)
    return seen


def started(name, dtype, **arguments):
    torch.manual_seed(0)
    model = nn.ParameterList([nn.Parameter(torch.randn(shape).bfloat16()) for shape in SHAPES])
    model.to(dtype)
    return model, hub.build(name, model, lr=1e-3, **CASES[name], **arguments)


def stepped(model, optimizer, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        gradients = [torch.randn(p.shape, generator=generator).bfloat16() for p in model]
        sum(
            (p * g.to(p.dtype)).sum().float() for p, g in zip(model, gradients, strict=True)
        ).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", CASES)
def test_pieces_equal_the_whole(name, cut):
    model, optimizer = started(name, torch.bfloat16, rounding="split")
    exact, reference = started(name, torch.float32)
    for numbers in ((0,), (1, 2)):  # the first step makes state
        stepped(model, optimizer, numbers)
        stepped(exact, reference, numbers)
        for ours, theirs in zip(model, exact, strict=True):
            state = dict(optimizer.state[ours])
            assert torch.equal(fp32_copy(ours, state.pop(BITS)), theirs)
            assert str(state) == str(reference.state.get(theirs, {}))
        assert 0 in numbers or max(cut) == PIECE
        assert sum(cut) == len(numbers) * sum(p.numel() for p in model)
        cut.clear()


def test_state_is_changed_in_its_own_memory():
    model, optimizer = started("adamw_torch", torch.bfloat16, rounding="split")
    stepped(model, optimizer, [0])
    before = [t.data_ptr() for p in model for t in plain_tensors(optimizer.state[p]) if t.ndim]
    stepped(model, optimizer, [1])
    after = [t.data_ptr() for p in model for t in plain_tensors(optimizer.state[p]) if t.ndim]
    assert before == after


def test_state_that_comes_later_is_put_together():
    pairs = []
    for dtype, options in ((torch.bfloat16, {"rounding": "split"}), (torch.float32, {})):
        model, optimizer = started("sgd", dtype, **options)
        for number, momentum in enumerate([0.0, 0.9, 0.9]):
            optimizer.param_groups[0].update(momentum=momentum, nesterov=False)
            stepped(model, optimizer, [number])
        pairs.append((model, optimizer))
    (ours, split), (theirs, plain) = pairs
    for own, other in zip(ours, theirs, strict=True):
        state, wanted = split.state[own], plain.state[other]["momentum_buffer"]
        assert torch.equal(state["momentum_buffer"], wanted)
        assert torch.equal(fp32_copy(own, state[BITS]), other)


def test_random_bits_are_those_of_the_whole(monkeypatch, cut):
    pieces = started("adamw_torch", torch.bfloat16, rounding="stochastic")
    stepped(*pieces, range(2))
    monkeypatch.setattr(sizes, "CACHED", 1 << 19)
    cut.clear()
    whole = started("adamw_torch", torch.bfloat16, rounding="stochastic")
    stepped(*whole, range(2))
    assert max(cut) > PIECE
    assert all(map(torch.equal, pieces[0], whole[0]))


def test_a_large_parameter_without_a_gradient_waits():
    model, optimizer = started("sgd", torch.bfloat16, rounding="split")
    stepped(model, optimizer, [0])
    before = model[0].clone()
    model[1].grad = torch.ones_like(model[1])
    optimizer.step()
    assert torch.equal(model[0], before)


def test_what_is_not_in_order_or_not_elementwise_stays_whole(cut):
    model = nn.Linear(16, 16).bfloat16()
    model.weight = nn.Parameter(model.weight.detach().T)
    optimizer = hub.build("adamw_torch", model, rounding="split")
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert cut == [256, 16] * 2
    model = nn.Linear(16, 16, bias=False).bfloat16()
    optimizer = hub.build("adafactor", model, rounding="split")
    for _ in range(2):
        model.weight.grad = torch.ones(16, 16).bfloat16()
        optimizer.step()
    assert cut == [256, 16, 256, 16, 256, 256]


@pytest.mark.parametrize(
    "state",
    [torch.zeros(3), torch.zeros(12, 4).T, [torch.zeros(4, 12)], torch.zeros(4, 12).to_sparse()],
)
def test_other_state_keeps_a_parameter_whole(state):
    parameter = nn.Parameter(torch.zeros(4, 12))
    optimizer = torch.optim.SGD([parameter])
    item = StandIn(optimizer.param_groups[0], 0, parameter, parameter)
    parameter.grad = torch.zeros(4, 12)
    assert not can_be_cut(optimizer, item, 8)  # whose state is not known yet
    optimizer.state[parameter] = {"step": torch.tensor(1.0), "kept": torch.zeros(4, 12)}
    assert can_be_cut(optimizer, item, 8)
    assert not can_be_cut(optimizer, item, 48)
    parameter.grad = None
    assert not can_be_cut(optimizer, item, 8)
    parameter.grad = torch.zeros(4, 12)
    optimizer.state[parameter]["other"] = state
    assert not can_be_cut(optimizer, item, 8)


def test_a_step_that_fails_leaves_the_state(monkeypatch):
    model, optimizer = started("adamw_torch", torch.bfloat16, rounding="split")
    stepped(model, optimizer, [0])
    keys = [sorted(optimizer.state[p]) for p in model]
    optimizer.param_groups[0]["betas"] = "nonsense"
    with pytest.raises((TypeError, ValueError)):
        stepped(model, optimizer, [1])
    assert [sorted(optimizer.state[p]) for p in model] == keys
    assert all(state["exp_avg"].shape == p.shape for p, state in optimizer.state.items())
