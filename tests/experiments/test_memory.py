import subprocess
import sys

import pytest
import torch

from hub.experiments import memory
from hub.measuring import tensor_bytes

MIB = 2**20


class Wrapped(torch.Tensor):
    """A tensor that, like quantised ones, is made of others."""

    @staticmethod
    def __new__(cls, *parts):
        made = torch.Tensor._make_wrapper_subclass(cls, (1000,))
        made.parts = parts
        made.low, made.high = parts
        return made

    def __tensor_flatten__(self):
        return ["low", "high"], None

    __torch_dispatch__ = None


def test_all_tensors_count_however_deep():
    nested = {"a": torch.zeros(4), "b": [torch.zeros(2).bfloat16(), ({"c": torch.tensor(1)},)]}
    assert tensor_bytes({**nested, "d": 3, "e": None, "f": "text"}) == 16 + 4 + 8


def test_a_quantized_tensor_counts_as_what_it_is_made_of():
    wrapped = Wrapped(torch.zeros(10, dtype=torch.uint8), torch.zeros(2))
    assert tensor_bytes([wrapped]) == 18


def test_state_of_adamw_is_two_moments_and_a_counter():
    weight = torch.nn.Parameter(torch.ones(10))
    optimizer = torch.optim.AdamW([weight])
    assert memory.state_bytes(optimizer) == 0
    weight.grad = torch.ones(10)
    optimizer.step()
    assert memory.state_bytes(optimizer) == 2 * 40 + 4


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot reset the peak")
def test_peak_sees_what_was_freed_again():
    """In a process of its own: this one may have freed memory that it still holds."""
    script = (
        "import torch; from hub.experiments import memory;"
        "big = bytearray(100 << 20); del big;"  # an earlier peak, which must not show
        "meter = memory.meter(torch.device('cpu')); meter.start(7 << 20);"
        "big = bytearray(32 << 20); del big; print(meter.peak())"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert 31 * MIB < int(ran.stdout) - 7 * MIB < 64 * MIB  # the kernel's counts are rough


def test_peak_without_proc_is_never_too_high(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "none" / "clear_refs")
    meter = memory.ProcessMeter()
    meter.start(7)
    assert 7 <= meter.peak() < 64 * MIB
