"""`hub doctor`: whether every installed plugin can be used, and why not."""

from __future__ import annotations

from dataclasses import dataclass

import typer
from rich.table import Table

from hub.errors import HubError, PluginError, PrecisionError
from hub.names.registry import GROUPS, Plugin, Registry, Source, default_registry
from hub.names.requirements import version_of
from hub.quiet import no_warnings
from hub.spec import Trait
from hub.terminal import Terminal


@dataclass(frozen=True)
class Diagnosis:
    """What is known about one plugin; without problems it is healthy."""

    source: Source
    version: str
    names: tuple[str, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def doctor() -> None:
    """Check every plugin: does it load, do versions fit, do names clash, does it build.

    The exit status is 1 if anything is wrong.
    """
    diagnoses = diagnose(default_registry())
    table = Table("plugin", "version", "names", "health")
    for diagnosis in diagnoses:
        health = "\n".join((*diagnosis.problems, *diagnosis.remarks)) or "ok"
        table.add_row(
            f"{diagnosis.source.distribution}\n{diagnosis.source.module}",
            diagnosis.version,
            ", ".join(diagnosis.names),
            health,
            style="red" if diagnosis.problems else None,
        )
    Terminal().print(table)
    if any(diagnosis.problems for diagnosis in diagnoses):
        raise typer.Exit(1)


def diagnose(registry: Registry) -> list[Diagnosis]:
    """Return a diagnosis of every installed plugin; builds each optimizer once, on the CPU."""
    return [_diagnose(registry, source) for source in registry.sources()]


def _diagnose(registry: Registry, source: Source) -> Diagnosis:
    names = {name for kind in GROUPS for name in registry.declared(source, kind)}
    problems, remarks = _clashes(registry, source), []
    try:
        plugin = registry.load(source)
    except PluginError as error:
        problems.append(str(error))
    else:
        trials = [_trial(plugin, registry, name) for name in plugin.optimizers]
        problems += [text for failed, text in trials if failed]
        remarks += [text for failed, text in trials if text and not failed]
    return Diagnosis(
        source,
        version_of(source.distribution),
        tuple(sorted(names)),
        tuple(problems),
        tuple(remarks),
    )


def _clashes(registry: Registry, source: Source) -> list[str]:
    problems = []
    for kind in GROUPS:
        for name in sorted(registry.declared(source, kind)):
            try:
                registry.source(kind, name)
            except PluginError as error:
                problems.append(str(error))
    return problems


def _trial(plugin: Plugin, registry: Registry, name: str) -> tuple[bool, str]:
    """Build an optimizer for a small model; return whether that fails, and a remark."""
    from torch import nn

    from hub.building.build import build_prepared
    from hub.planning.call import BuildCall
    from hub.planning.prepare import prepare

    required = [
        key for key, f in plugin.optimizers[name].arguments.model_fields.items() if f.is_required()
    ]
    if required:
        return False, f"{name}: not tried, it requires {', '.join(required)}"
    if len(registry.owners("optimizer", name)) > 1:
        return False, ""
    low_rank = Trait.LOW_RANK in plugin.optimizers[name].traits
    try:
        with no_warnings():
            call = BuildCall(
                name,
                nn.Sequential(nn.Linear(256, 256, device="cpu"), nn.Linear(256, 256, device="cpu")),
                target_modules="all-linear" if low_rank else None,
                **plugin.optimizers[name].example_arguments,
            )
            build_prepared(prepare(call, registry=registry))
    except PrecisionError as error:
        return False, f"{name}: {error.what}"
    except HubError as error:
        return True, str(error)
    except Exception as error:  # noqa: BLE001 - a stranger's hook
        return True, f"{name} cannot be planned: {type(error).__name__}: {error}"
    return False, ""
