"""Which checks apply to which optimizer where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.forms import SUFFIX, has_layerwise
from hub.registry import Registry, default_registry
from hub.spec import Trait
from hub.testing.promises import CHECKS, IN_BACKWARD
from hub.testing.subject import DTYPES, Subject

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
    """Return every check of every name, in its eager and its layerwise form, in fp32 and bf16.

    In every dtype that the optimizer does not declare, and on a device that it does not, the only
    check is that building is refused with the reason.
    """
    registry = registry or default_registry()
    found = []
    for name in forms(names, registry):
        spec = registry.optimizer(name)
        inside = Trait.STEPS_IN_BACKWARD in spec.traits
        checks = [c for c in CHECKS if c != "refused" and (inside or c not in IN_BACKWARD)]
        for precision in DTYPES:
            subject = Subject(name, precision, device, registry)
            if precision not in spec.precisions or device not in spec.devices:
                found.append(Case("refused", subject))
            elif precision in PRECISIONS:
                found += [Case(check, subject) for check in checks]
    return found


def forms(names: Iterable[str], registry: Registry) -> list[str]:
    """Return the names, each followed by that of its layerwise form, where it has one."""
    found = []
    for name in names:
        own = has_layerwise(registry.optimizer(name))
        found += [name, *([name + SUFFIX] if own else [])]
    return found
