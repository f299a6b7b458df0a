"""`hub list`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from hub.errors import PluginError
from hub.names.catalogue import EXTRA_OF, install_command
from hub.names.registry import default_registry, version_of
from hub.terminal import Terminal

if TYPE_CHECKING:
    from hub.names.registry import Kind, Registry


@dataclass(frozen=True)
class Row:
    """One name, installed or not."""

    name: str
    kind: Kind
    summary: str
    distribution: str
    version: str
    installed: bool
    install: str


def list_names(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern, such as 'galore*'.")] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List optimizers and schedules: installed ones, and how to install the others."""
    rows = find(default_registry(), pattern)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table(Column("name", no_wrap=True), "kind", "summary", "distribution", box=SIMPLE_HEAD)
    for row in rows:
        origin = f"{row.distribution} {row.version}" if row.installed else row.install
        table.add_row(row.name, row.kind, row.summary, origin)
    Terminal().print(table)


def find(registry: Registry, pattern: str) -> list[Row]:
    """Return all names that match, installed or known to be installable."""
    installed = registry.names("optimizer", pattern)
    missing = [name for name in EXTRA_OF if fnmatchcase(name, pattern) and name not in installed]
    rows = [_installed(registry, "optimizer", name) for name in installed]
    rows += [_missing(name) for name in missing]
    rows.sort(key=lambda row: row.name)
    return rows + [
        _installed(registry, "scheduler", name) for name in registry.names("scheduler", pattern)
    ]


def _installed(registry: Registry, kind: Kind, name: str) -> Row:
    try:
        plugin = registry.plugin(kind, name)
    except PluginError as error:
        return Row(
            name, kind, f"broken: {error.what}", error.plugin, "", installed=True, install=""
        )
    specs = plugin.optimizers if kind == "optimizer" else plugin.schedulers
    distribution = plugin.source.distribution
    return Row(
        name, kind, specs[name].summary, distribution, version_of(distribution), True, install=""
    )


def _missing(name: str) -> Row:
    extra = EXTRA_OF[name]
    return Row(
        name, "optimizer", "not installed", f"hub-{extra}", "", False, install_command(extra)
    )
