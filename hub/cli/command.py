"""What every command has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from hub.cli.language import in_options
from hub.errors import HubError
from hub.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hub.names.unknown import Kind


class Command(TyperCommand):
    """A command that shows an error of hub's as a message, and exits with 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except HubError as error:
            Terminal(stderr=True).print(in_options(str(error), ctx), style="red")
            raise typer.Exit(2) from error


def complete_optimizer(incomplete: str) -> list[str]:
    """Return the optimizers that begin so, for the shell."""
    return list(_beginning(incomplete, ("optimizer",)))


def complete_schedule(incomplete: str) -> list[str]:
    """Return the schedules that begin so, for the shell."""
    return list(_beginning(incomplete, ("scheduler",)))


def complete_name(incomplete: str) -> list[str]:
    """Return the optimizers and schedules that begin so, for the shell."""
    return list(_beginning(incomplete, ("optimizer", "scheduler")))


def _beginning(incomplete: str, kinds: tuple[Kind, ...]) -> Iterable[str]:
    from hub.names.registry import default_registry

    names = (name for kind in kinds for name in default_registry().names(kind))
    return dict.fromkeys(name for name in names if name.startswith(incomplete))
