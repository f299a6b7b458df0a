"""`offload` where it is for: pinned memory, streams and peak memory of a GPU."""

import gc

import pytest
import torch
from torch import nn

import hub
from hub.measuring import plain_tensors
from hub.running.buckets import sizes
from hub.running.buckets.memory import StreamMemory
from hub.testing import Subject
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.subject import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
NAMES = [
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_layerwise",
    "adafactor",
    "galore_adamw",
    "schedule_free_adamw",
    "adamw_8bit",
    "muon",
]
MATRICES, SIDE = 24, 2048


def dimensioned(optimizer):
    return [t for s in optimizer.state.values() for t in plain_tensors(s) if t.ndim and t.numel()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rounding", [None, "split"])
def test_it_equals_the_run_without(name, rounding, monkeypatch):
    monkeypatch.setattr(sizes, "ELEMENTS", 2000)
    options = () if rounding is None else (("rounding", rounding),)
    precision = "fp32" if rounding is None else "bf16"
    plain = Subject(name, precision, "cuda", options=options)
    whole, optimizer = plain.start()
    train(whole, optimizer, 4)
    half, optimizer = plain.start(offload="cpu")
    train(half, optimizer, 2)
    saved = through_a_file([half.state_dict(), optimizer.state_dict()])
    resumed, other = plain.start(offload="cpu")
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    train(resumed, other, 2, start=2)
    assert_same(whole, resumed)


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_layerwise", "galore_adamw"])
def test_state_is_in_pinned_memory(name):
    model, optimizer = Subject(name, device="cuda").start(offload="cpu")
    train(model, optimizer, 2)
    assert all(t.device.type == "cpu" and t.is_pinned() for t in dimensioned(optimizer))
    addresses = {t.data_ptr() for t in dimensioned(optimizer)}
    train(model, optimizer, 3, start=2)
    if name != "galore_adamw":  # which replaces its projections
        assert {t.data_ptr() for t in dimensioned(optimizer)} == addresses
    optimizer.load_state_dict(optimizer.state_dict())
    assert all(t.device.type == "cpu" for t in dimensioned(optimizer))


def test_a_state_dict_is_on_the_host():
    model, optimizer = Subject("schedule_free_adamw", device="cuda").start(offload="cpu")
    train(model, optimizer, 1)
    tensors = list(plain_tensors(optimizer.state_dict()["state"]))
    assert all(t.device.type == "cpu" for t in tensors if t.ndim)
    model.eval()
    model.train()
    train(model, optimizer, 1, start=1)


def large(name, **arguments):
    layers = (nn.Linear(SIDE, SIDE, bias=False, device="cuda") for _ in range(MATRICES))
    model = nn.Sequential(*layers)
    return model, hub.build(name, model, **arguments)


def step(model, optimizer):
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()


def allocated():
    """Return the bytes in use, without those that the allocator is still to take back."""
    torch.cuda.synchronize()
    gc.collect()
    torch.empty(1, device="cuda")
    return torch.cuda.memory_allocated()


@pytest.mark.parametrize("name", ["adamw_torch", "sgd"])
def test_the_device_holds_what_the_estimate_says(name):
    arguments = {"momentum": 0.9} if name == "sgd" else {}
    model, optimizer = large(name, offload="cpu", **arguments)
    for _ in range(3):
        step(model, optimizer)
    before = allocated()
    torch.cuda.reset_peak_memory_stats()
    held = sum(p.nbytes + p.grad.nbytes for p in model.parameters())
    assert before <= held * 1.02
    optimizer.step()
    torch.cuda.synchronize()
    estimated = hub.estimate(name, model_on_meta(), offload="cpu", **arguments)
    # Two more buckets for what a step of the class itself makes (torch's foreach ones do).
    temporary = 2 * 4 * SIDE**2
    assert torch.cuda.max_memory_allocated() - before <= estimated.state + temporary
    assert allocated() <= before * 1.02


def model_on_meta():
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(MATRICES)))


def test_loading_does_not_need_the_state_on_the_device():
    model, optimizer = large("adamw_torch", offload="cpu")
    step(model, optimizer)
    saved = through_a_file(optimizer.state_dict())
    before = allocated()
    torch.cuda.reset_peak_memory_stats()
    optimizer.load_state_dict(saved)
    assert torch.cuda.max_memory_allocated() - before < 4 * SIDE**2


def test_what_comes_is_waited_for_and_memory_is_not_given_away_too_soon():
    """Long work on the present stream, so that copies overtake it if nothing holds them."""
    memory = StreamMemory(torch.device("cuda", 0))
    busy = torch.randn(4096, 4096, device="cuda")
    values = torch.arange(1 << 22, dtype=torch.float32, device="cuda")
    homes = []
    for _ in range(6):
        for _ in range(10):
            busy = busy @ busy / busy.norm()
        values = values + 1
        homes.append(memory.put(values.untyped_storage(), None))
    memory.finish()
    for number, home in enumerate(homes):
        expected = torch.arange(1 << 22, dtype=torch.float32) + number + 1
        found = torch.empty(0).set_(home, 0, (1 << 22,), (1,))
        assert torch.equal(found, expected)
        here = memory.bring(home)
        memory.wait(memory.mark())
        copy = torch.empty(0, device="cuda").set_(here, 0, (1 << 22,), (1,))
        assert torch.equal(copy.cpu(), expected)


def test_what_comes_back_at_once_has_arrived_before():
    """Two streams, of which the one that comes has to wait for the one that goes."""
    memory = StreamMemory(torch.device("cuda", 0))
    busy = torch.randn(4096, 4096, device="cuda")
    home = memory.put(torch.zeros(1 << 24, device="cuda").untyped_storage(), None)
    memory.finish()
    for number in range(1, 6):
        for _ in range(10):
            busy = busy @ busy / busy.norm()
        values = torch.full((1 << 24,), float(number), device="cuda")
        home = memory.put(values.untyped_storage(), home)
        here = memory.bring(home)
        memory.wait(memory.mark())
        copy = torch.empty(0, device="cuda").set_(here, 0, values.shape, (1,))
        assert (copy == number).all()


def test_a_layerwise_step_holds_what_the_estimate_says():
    """Although the program is ahead of the device."""
    inputs = torch.randn(1 << 14, SIDE, device="cuda")
    peaks = []
    for arguments in ({}, {"offload": "cpu"}):
        model, optimizer = large("adamw_torch_layerwise", **arguments)
        for _ in range(3):
            model(inputs).square().mean().backward()
            optimizer.step()
        resting = allocated()
        torch.cuda.reset_peak_memory_stats()
        model(inputs).square().mean().backward()
        optimizer.step()
        peaks.append(torch.cuda.max_memory_allocated() - resting)
    state = hub.estimate("adamw_torch_layerwise", model_on_meta(), offload="cpu").state
    assert peaks[1] - peaks[0] <= state * 1.1


def test_copies_overlap_the_step():
    """The next bucket's copy starts before the step of this one has ended."""
    memory = StreamMemory(torch.device("cuda", 0))
    home = memory.put(torch.ones(1 << 26, device="cuda").untyped_storage(), None)
    memory.finish()
    busy = torch.randn(8192, 8192, device="cuda")
    torch.cuda.synchronize()
    for _ in range(20):
        busy = busy @ busy / busy.norm()
    computed = torch.cuda.current_stream().record_event()
    memory.bring(home)
    arrival, _ = memory.mark()
    arrival.synchronize()
    assert not computed.query()
