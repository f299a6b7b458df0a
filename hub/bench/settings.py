"""What a measurement is asked to do: plain frozen data, checked when it is made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.compare.settings import DEVICE, PRECISIONS, Contender
from hub.errors import HubError, PrecisionError
from hub.text import shown

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = re.compile(r"[1-9]\d{0,9}(x[1-9]\d{0,9}){1,4}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a measurement depends on.

    Raises:
        HubError: A value makes no sense.
        PrecisionError: The precision is unknown.
    """

    contenders: tuple[Contender, ...]
    model: Path | None = None
    """A folder with a Transformers configuration."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Instead: how many tensors, and the shape of each, such as (512, 8, 512). With neither, the
    layers of a small Llama, see `hub.bench.problem.SMALL`."""
    precision: str = "fp32"
    device: str = "cpu"
    """"cpu", "cuda" or "cuda:N"."""
    threads: int | None = None
    """None: as many as torch takes by itself."""
    steps: int | None = None
    """How many steps are timed after the first; None: those of about half a second, at least 3."""

    def __post_init__(self) -> None:
        labels = [contender.label for contender in self.contenders]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise HubError(
                "an optimizer is named twice with the same settings",
                where=twice,
                fix="name it once, or with different settings",
            )
        if self.model is not None and self.shapes:
            raise HubError(
                "both a model and shapes are given", where="shapes", fix="leave one of them out"
            )
        for key in ("threads", "steps"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise HubError(f"{key} is {value}", where=key, fix="1 or more")
        if self.precision not in PRECISIONS:
            raise PrecisionError(
                f"{self.precision!r} is not a precision for measurements",
                where="precision",
                fix=f"one of {', '.join(PRECISIONS)}",
            )
        if not DEVICE.fullmatch(self.device):
            raise HubError(
                f"{self.device!r} is not a device for measurements",
                where="device",
                fix="cpu, cuda or cuda:N",
            )


def parse_shape(text: str) -> tuple[int, ...]:
    """Read how many tensors, and the shape of each: `512x8x512` is 512 matrices of 8x512.

    Raises:
        HubError: It is something else.
    """
    if not SHAPE.fullmatch(text):
        raise HubError(
            f"{shown(text)} is not a number of tensors and their shape",
            where="shapes",
            fix="512x8x512 is 512 matrices of 8x512, and 64x1000 is 64 vectors of 1000 numbers",
        )
    return tuple(map(int, text.split("x")))
