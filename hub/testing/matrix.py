"""Which checks apply to which optimizer where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.arguments.patterns import closest_names
from hub.errors import OptimArgsError, PluginError
from hub.experiments.devices import check_device_word
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.names.registry import Registry, default_registry
from hub.spec import OptimizerSpec, SchedulerSpec, Trait
from hub.testing.promises import CHECKS, EAGER, IN_BACKWARD, IN_PROCESSES
from hub.testing.schedule_checks import CHECKS as SCHEDULE_CHECKS
from hub.testing.schedule_checks import Timetable
from hub.testing.subject import DTYPES, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hub.names.unknown import Kind

SCHEDULER: Kind = "scheduler"
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Case:
    """One check of one optimizer in one setting, or of one schedule."""

    check: str
    subject: Subject | Timetable

    @property
    def id(self) -> str:
        """Readable, and made for `pytest -k`: "resume-galore_adamw-bf16"."""
        device = "" if self.subject.device == "cpu" else f"-{self.subject.device}"
        return f"{self.check}-{self.subject.name}-{self.subject.precision}{device}"

    @property
    def known(self) -> str:
        """Why the spec says that this check fails for now; "" where it has to pass."""
        reasons = self.subject.spec.known_failures
        return reasons.get(f"{self.check}-{self.subject.precision}") or reasons.get(self.check, "")


def cases(
    names: Iterable[str],
    device: str = "cpu",
    registry: Registry | None = None,
    processes: int = 1,
) -> list[Case]:
    """Return every check of every name, in its eager and its layerwise form, in fp32 and bf16.

    A name may be that of an optimizer, of a schedule, or of both. In fp16 and fp64, where the
    optimizer declares them, the only check is that it trains; in a dtype or on a device that it
    does not declare, that building is refused with the reason. The checks of several processes come
    with two processes and more, on the CPU.

    Raises:
        HubError: A name is unknown, its spec declares failures of checks that do not exist, or
            the device is not a name of one.
    """
    check_device_word(device)
    kind = device.partition(":")[0]
    registry = registry or default_registry()
    found = []
    names = list(names)
    optimizers = [name for name in names if not _is_only(SCHEDULER, name, registry)]
    schedules = [name for name in names if registry.owners(SCHEDULER, name)]
    for name in forms(optimizers, registry):
        spec = registry.optimizer(name)
        _check_known(spec)
        _check_arguments(spec)
        inside = Trait.STEPS_IN_BACKWARD in spec.traits
        others = EAGER if inside else IN_BACKWARD
        if processes == 1 or kind != "cpu":
            others |= IN_PROCESSES
        checks = [c for c in CHECKS if c != "refused" and c not in others]
        for precision in DTYPES:
            subject = Subject(name, precision, device, registry, processes)
            if precision not in spec.precisions or kind not in spec.devices:
                found.append(Case("refused", subject))
            else:
                found += [
                    Case(c, subject) for c in checks if precision in PRECISIONS or c == "trains"
                ]
    for name in schedules:
        _check_known(registry.scheduler(name))
        found += [Case(check, Timetable(name, registry)) for check in SCHEDULE_CHECKS]
    return found


def names_of(plugin: str, registry: Registry | None = None) -> list[str]:
    """Return the optimizers and schedules that a plugin offers, sorted.

    Args:
        plugin: The module of its hooks, as its entry points name it.
        registry: Where to look; by default what is installed.

    Raises:
        PluginError: No entry point names the module.
    """
    registry = registry or default_registry()
    sources = [source for source in registry.sources() if source.module == plugin]
    kinds: tuple[Kind, ...] = ("optimizer", "scheduler")
    names = {name for s in sources for kind in kinds for name in registry.declared(s, kind)}
    if not names:
        raise PluginError(
            f"no installed entry point names the module '{plugin}'",
            where=plugin,
            fix="install the plugin, or name the module as its pyproject.toml does",
        )
    return sorted(names)


def _is_only(kind: Kind, name: str, registry: Registry) -> bool:
    other: Kind = "optimizer" if kind == "scheduler" else "scheduler"
    return bool(registry.owners(kind, name)) and not registry.owners(other, name)


def _check_known(spec: OptimizerSpec | SchedulerSpec) -> None:
    checks = CHECKS if isinstance(spec, OptimizerSpec) else SCHEDULE_CHECKS
    ids = [*checks, *(f"{check}-{precision}" for check in checks for precision in PRECISIONS)]
    for key in spec.known_failures:
        if key not in ids:
            raise PluginError(
                f"the spec of '{spec.name}' declares a known failure of '{key}', "
                "which is not a check",
                where=f"{type(spec).__name__}.known_failures",
                fix=closest_names(key, ids),
            )


def _check_arguments(spec: OptimizerSpec) -> None:
    """Check that the kit knows all required arguments; an import path has no examples of them."""
    fields = spec.arguments.model_fields.items()
    known = {"lr", *spec.example_arguments}
    missing = [key for key, field in fields if field.is_required() and key not in known]
    if missing and ":" in spec.name:
        raise OptimArgsError(
            f"{spec.name} requires {', '.join(missing)}, for which the kit has no values",
            where=spec.name,
            fix="write a function of the parameters that gives them, and check its import path",
        )


def forms(names: Iterable[str], registry: Registry) -> list[str]:
    """Return the names, each followed by the name of its layerwise form, if it has one."""
    found = []
    for name in names:
        own = has_layerwise_form(registry.optimizer(name))
        found += [name, *([name + LAYERWISE_SUFFIX] if own else [])]
    return found
