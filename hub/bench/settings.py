"""What a measurement is asked to do: plain frozen data, checked when it is made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.errors import HubError
from hub.experiments.contender import check_labels
from hub.experiments.devices import check_words
from hub.text import shown

if TYPE_CHECKING:
    from pathlib import Path

    from hub.experiments.contender import Contender

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
        check_labels(self.contenders)
        if self.model is not None and self.shapes:
            raise HubError(
                "both a model and shapes are given", where="shapes", fix="leave one of them out"
            )
        for key in ("threads", "steps"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise HubError(f"{key} is {value}", where=key, fix="1 or more")
        check_words(self.precision, self.device)


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
