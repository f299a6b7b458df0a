"""Which checks apply to which optimizer where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.registry import Registry, default_registry
from hub.testing.promises import CHECKS
from hub.testing.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Iterable

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Case:
    """One check of one optimizer in one setting."""

    check: str
    subject: Subject

    @property
    def id(self) -> str:
        """Readable, and made for `pytest -k`: "resume-galore_adamw-bf16"."""
        device = "" if self.subject.device == "cpu" else f"-{self.subject.device}"
        return f"{self.check}-{self.subject.name}-{self.subject.precision}{device}"


def cases(
    names: Iterable[str], device: str = "cpu", registry: Registry | None = None
) -> list[Case]:
    """Return every check of every name in fp32 and bf16 on a device.

    Where the optimizer does not declare the precision or the device, the only check is that
    building is refused with the reason.
    """
    registry = registry or default_registry()
    found = []
    for name in names:
        spec = registry.optimizer(name)
        for precision in PRECISIONS:
            subject = Subject(name, precision, device, registry)
            declared = precision in spec.precisions and device in spec.devices
            checks = [check for check in CHECKS if (check == "refused") != declared]
            found += [Case(check, subject) for check in checks]
    return found
