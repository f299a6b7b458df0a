"""How many bytes an optimizer keeps, and how many its training took at the highest point."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""What Linux takes, written to `clear_refs`, as the wish to start the peak anew."""


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Count the bytes of all tensors under "state" in the optimizer's state dict.

    Nothing is left out: step counters, projections and master weights count like moments do.
    """
    from hub.measuring import tensor_bytes

    return tensor_bytes(optimizer.state_dict()["state"])


class Meter(Protocol):
    """Measures the memory that parameters, gradients, state and activations take together."""

    def start(self, held: int) -> None:
        """Begin, with parameters and state of so many bytes already there."""

    def peak(self) -> int | None:
        """Return the highest bytes since the start, or None if the system does not report it."""


def meter(device: torch.device) -> Meter:
    """Return the meter for what is trained on this device."""
    return CudaMeter(device) if device.type == "cuda" else ProcessMeter()


class CudaMeter:
    """The highest sum of live tensors in torch's allocator, without its cache and without kernels.

    Memory that a package takes past torch's allocator (paged states) is not in it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self, held: int) -> None:  # noqa: ARG002 - the allocator counts what is held
        """Forget earlier peaks."""
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int | None:
        """Return the peak in bytes."""
        import torch

        return torch.cuda.max_memory_allocated(self._device)


class ProcessMeter:
    """How far the resident memory of this process rose, plus what was there at the start.

    The libraries are loaded before the start and so are not in it; what the C library keeps of
    freed memory is. Where the system has no resettable peak (other than Linux), the rise is that
    of the process's all-time peak, which can be too low but not too high.
    """

    def __init__(self) -> None:
        self._held = 0
        self._base: int | None = None
        self._resettable = False

    def start(self, held: int) -> None:
        """Reset the peak where that is possible, and note where it starts."""
        self._held = held
        try:
            CLEAR_REFS.write_text(RESET_PEAK)
            self._base = _status_bytes("VmRSS")
            self._resettable = True
        except OSError:
            self._base = _lifetime_peak()

    def peak(self) -> int | None:
        """Return the peak in bytes, or None if the system does not report it."""
        top = _status_bytes("VmHWM") if self._resettable else _lifetime_peak()
        return None if top is None or self._base is None else top - self._base + self._held


def _status_bytes(key: str) -> int | None:
    found = re.search(rf"^{key}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _lifetime_peak() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
