"""`hub search-space NAME`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.command import complete_optimizer
from hub.names.searching import search_space as find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.names.searching import SearchSpace


class Form(StrEnum):
    """How a space is printed."""

    JSON = "json"
    WANDB = "wandb"


def search_space(
    name: Annotated[
        str,
        typer.Argument(help="An optimizer, as in `hub list`.", autocompletion=complete_optimizer),
    ],
    argument: Annotated[
        list[str] | None,
        typer.Option(
            help="What to tune; by default lr, weight_decay and betas, where it has them."
        ),
    ] = None,
    optim_args: Annotated[
        str | None, typer.Option(help="key=value, key=value: what is set, and not tuned.")
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="JSON, or the parameters of a W&B sweep in YAML.")
    ] = Form.JSON,
) -> None:
    """Print the ranges in which to tune an optimizer's arguments."""
    space = find(name, argument, optim_args=optim_args)
    if form is Form.JSON:
        typer.echo(json.dumps(space.to_dict(), indent=2))
    else:
        typer.echo("\n".join(_sweep(space)))


def _sweep(space: SearchSpace) -> Iterator[str]:
    yield "parameters:" if space.dimensions else "parameters: {}"
    for name, found in space.wandb().items():
        yield f"  {name}:"
        yield from (f"    {key}: {_scalar(value)}" for key, value in found.items())


def _scalar(value: str | float) -> str:
    """Return a value for YAML 1.1, which W&B reads: there 3e-05 is a text, and 3.0e-05 a number."""
    text = str(value)
    is_short = isinstance(value, float) and "e" in text and "." not in text
    return text.replace("e", ".0e") if is_short else text
