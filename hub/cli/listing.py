"""`hub list`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.command import complete_name
from hub.errors import PluginError
from hub.names.catalogue import EXTRA_OF, install_command
from hub.names.registry import default_registry
from hub.names.requirements import version_of
from hub.names.unknown import nearest_names
from hub.terminal import Terminal, literal
from hub.text import clean, shown

if TYPE_CHECKING:
    from rich.text import Text

    from hub.names.registry import Registry
    from hub.names.unknown import Kind


CORE = "hub"
"""The distribution that is listed first."""


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

    @property
    def broken(self) -> bool:
        """Whether the plugin does not load."""
        return self.installed and not self.version


def list_names(
    pattern: Annotated[
        str,
        typer.Argument(
            help="Shell-style pattern, such as 'galore*'.", autocompletion=complete_name
        ),
    ] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List optimizers and schedules, and how to install those that are missing.

    The exit status is 1 if nothing matches.
    """
    registry = default_registry()
    rows = matching(registry, pattern)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print(rows)
    if not rows:
        Terminal(stderr=True).print(_no_match(registry, pattern), style="red")
        raise typer.Exit(1)


def _print(rows: list[Row]) -> None:
    """Print one line for each name, plugin by plugin: optimizers, and then the schedules."""
    console = Terminal()
    for kind, title in (("optimizer", ""), ("scheduler", ", learning-rate schedules")):
        chosen = [row for row in rows if row.kind == kind]
        width = max((len(clean(row.name)) for row in chosen), default=0)
        for origin in sorted({_origin(row) for row in chosen}, key=_core_first):
            console.print(literal("".join(origin) + title, "bold"))
            for row in chosen:
                if _origin(row) == origin:
                    console.print(_line(row, width), no_wrap=True, overflow="ellipsis")


def _line(row: Row, width: int) -> Text:
    summary = row.summary if row.installed else ""
    return literal(f"  {clean(row.name):{width}}  {summary}".rstrip(), "red" * row.broken)


def _core_first(origin: tuple[str, str]) -> tuple[bool, tuple[str, str]]:
    return origin[0] != CORE, origin


def _origin(row: Row) -> tuple[str, str]:
    """Return a distribution, and its version or how to get it."""
    if not row.installed:
        return row.distribution, f", not installed: {row.install}"
    return row.distribution, f" {row.version}" if row.version else ""


def _no_match(registry: Registry, pattern: str) -> str:
    """Return the message for a pattern that matches nothing, with the nearest names."""
    known = {*registry.names("optimizer"), *registry.names("scheduler"), *EXTRA_OF}
    near = nearest_names(re.sub(r"\[.*?\]|[*?]", "", pattern), known)
    advice = f"did you mean {' or '.join(near)}?" if near else "see `hub list`"
    return f"nothing matches {shown(pattern)}\n  fix: {advice}"


def matching(registry: Registry, pattern: str) -> list[Row]:
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
