"""Which precisions and devices an optimizer can be tried in."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING

from hub.errors import HubError, PrecisionError
from hub.text import shown

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "bf16-mixed", "fp16-mixed")
"""Parameters in fp32 or bf16; "-mixed" is fp32 parameters under autocast."""
DEVICE = re.compile(r"cpu|cuda(:\d+)?")


def check_words(precision: str, device: str) -> None:
    """Check the names of a precision and of a device, without torch.

    Raises:
        HubError: The device is not a name of one.
        PrecisionError: The precision is unknown, or the device cannot train in it.
    """
    if precision not in PRECISIONS:
        raise PrecisionError(
            f"{shown(precision)} is not a precision to try an optimizer in",
            where="precision",
            fix=f"one of {', '.join(PRECISIONS)}",
        )
    check_device_word(device)
    if precision == "fp16-mixed" and device.startswith("cpu"):
        raise PrecisionError(
            "fp16-mixed trains on CUDA only",
            where="precision",
            fix='bf16-mixed, or device="cuda"',
        )


def check_device_word(device: str) -> None:
    """Check the name of a device, without torch.

    Raises:
        HubError: It is not a name of one.
    """
    if not DEVICE.fullmatch(device):
        raise HubError(
            f"{shown(device)} is not a device", where="device", fix="cpu, cuda or cuda:N"
        )


def check_device(device: str) -> None:
    """Check that torch has a device.

    Raises:
        HubError: It has not, or there is no such device.
    """
    check_device_word(device)
    if not device.startswith("cuda"):
        return
    import torch

    index, count = torch.device(device).index or 0, torch.cuda.device_count()
    if index >= count:
        how = "a lower index" if count else f"a machine where torch sees a GPU: {_why_no_cuda()}"
        raise HubError(
            f"{device} is not available: torch sees {count} CUDA devices",
            where="device",
            fix=f"cpu, or {how}",
        )


def _why_no_cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return f"torch {torch.__version__} needs a driver for CUDA {torch.version.cuda}"


def device_in_words(device: torch.device, threads: int | None = None) -> str:
    """Name a GPU, or a kind of CPU and how many threads compute on it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = threads or torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"
