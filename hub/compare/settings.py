"""What a comparison is asked to do: plain frozen data, checked when it is made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.errors import HubError, PrecisionError

if TYPE_CHECKING:
    from pathlib import Path

PRECISIONS = ("fp32", "bf16", "bf16-mixed", "fp16-mixed")
"""Parameters in fp32 or bf16; "-mixed" is fp32 parameters under autocast."""
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
IMPORT_PATH = re.compile(r"\s*[\w.]+:[A-Za-z_]\w*\s*(?=:|$)")
"""Of an optimizer at the beginning of a contender; `key=value` would follow a plain name."""


@dataclass(frozen=True)
class Contender:
    """One optimizer with the settings it is to be tried with."""

    name: str
    optim_args: str = ""
    """`key=value,…`, handed to `hub.build` as they are."""

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read `NAME` or `NAME:key=value,…`, where a name may be an import path, `module:Class`.

        Raises:
            HubError: The name is missing.
        """
        path = IMPORT_PATH.match(text)
        end = path.end() if path else text.find(":")
        name, optim_args = (text[:end], text[end + 1 :]) if end >= 0 else (text, "")
        if not name.strip():
            raise HubError(
                "the name of an optimizer is missing",
                where=repr(text),
                fix="NAME or NAME:key=value,key=value",
            )
        return cls(name.strip(), optim_args.strip())

    @property
    def label(self) -> str:
        """The contender as its user wrote it."""
        return f"{self.name}:{self.optim_args}" if self.optim_args else self.name


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a comparison depends on.

    Raises:
        HubError: A value makes no sense.
        PrecisionError: The precision is unknown, or the device cannot train in it.
    """

    contenders: tuple[Contender, ...]
    target_modules: str | tuple[str, ...] = "all-linear"
    """For low-rank optimizers only; the others train every parameter alike."""
    lr_scheduler: str | None = None
    warmup_steps: int = 0
    """Warm-up of the learning rate; needs a scheduler."""
    steps: int = 100
    batch_size: int = 8
    sequence_length: int = 128
    """In tokens, which are bytes."""
    max_grad_norm: float | None = None
    precision: str = "fp32"
    device: str = "cpu"
    """"cpu", "cuda" or "cuda:N"."""
    seed: int = 0
    data: Path | None = None
    """A UTF-8 text; None is the help text that comes with Python."""
    model: Path | None = None
    """A folder with a Transformers configuration and perhaps weights; None is a small Llama."""
    out: Path | None = None
    """The folder that the report is written to; None is no report."""

    def __post_init__(self) -> None:
        self._check_contenders()
        for key, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("sequence_length", 2),
            ("warmup_steps", 0),
            ("seed", 0),
        ):
            if getattr(self, key) < least:
                raise HubError(f"{key} is {getattr(self, key)}", where=key, fix=f"{least} or more")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise HubError(
                f"max_grad_norm is {self.max_grad_norm}",
                where="max_grad_norm",
                fix="a number above 0, or leave it out to train without clipping",
            )
        if self.warmup_steps and self.lr_scheduler is None:
            raise HubError(
                "warmup_steps needs a learning-rate schedule",
                where="warmup_steps",
                fix="name an lr_scheduler, such as constant_with_warmup",
            )
        if self.warmup_steps > self.steps:
            raise HubError(
                f"{self.warmup_steps} warm-up steps do not fit into {self.steps} steps",
                where="warmup_steps",
                fix="fewer warm-up steps, or more steps",
            )
        self._check_precision()

    def _check_contenders(self) -> None:
        if not self.contenders:
            raise HubError(
                "there is nothing to compare", where="contenders", fix="name an optimizer"
            )
        labels = [contender.label for contender in self.contenders]
        for label in labels:
            if labels.count(label) > 1:
                raise HubError(
                    "an optimizer is named twice with the same settings",
                    where=label,
                    fix="name it once, or with different settings",
                )

    def _check_precision(self) -> None:
        if self.precision not in PRECISIONS:
            raise PrecisionError(
                f"{self.precision!r} is not a precision for comparisons",
                where="precision",
                fix=f"one of {', '.join(PRECISIONS)}",
            )
        if not DEVICE.fullmatch(self.device):
            raise HubError(
                f"{self.device!r} is not a device for comparisons",
                where="device",
                fix="cpu, cuda or cuda:N",
            )
        if self.precision == "fp16-mixed" and self.device.startswith("cpu"):
            raise PrecisionError(
                "fp16-mixed trains on CUDA only",
                where="precision",
                fix='bf16-mixed, or device="cuda"',
            )
