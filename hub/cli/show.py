"""`hub show NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.syntax import Syntax
from rich.table import Column, Table

from hub.arguments.describe import type_name
from hub.cli.command import complete_optimizer
from hub.names import describe
from hub.names.catalogue import EXTRA_OF
from hub.names.registry import default_registry
from hub.running.sharded.kinds import sharding_of
from hub.spec import Trait
from hub.terminal import Terminal, literal
from hub.text import clean

if TYPE_CHECKING:
    from hub.spec import OptimizerSpec


SHARDED = {
    "native": "steps sharded parameters as the DTensors they are",
    "rows": "each rank steps its own rows, where these are whole blocks of quantized state",
    "whole": "one rank steps each parameter as a whole, and has its state",
}
"""How an optimizer steps parameters that FSDP2 shards, by `Sharding.kind`."""


def show(
    name: Annotated[
        str,
        typer.Argument(help="An optimizer, as in `hub list`.", autocompletion=complete_optimizer),
    ],
) -> None:
    """Show what an optimizer takes and can do, with an example that runs."""
    spec = describe(name)
    console = Terminal()
    console.print(literal(spec.name, "bold"), spec.summary, sep=": ")
    console.print(_facts(spec))
    console.print(_arguments(spec))
    for note in spec.notes:
        console.print(f"- {note}")
    console.print("\nExample:")
    if console.is_terminal:
        console.print(Syntax(example(spec), "python", background_color="default"))
    else:  # to be copied: lines as they are
        typer.echo(clean(example(spec)))


def example(spec: OptimizerSpec) -> str:
    """Return a program that trains one step with this optimizer."""
    targets = ', target_modules="all-linear"' if Trait.LOW_RANK in spec.traits else ""
    field = spec.arguments.model_fields.get("lr")
    rate = {} if field is None else {"lr": 1e-3 if field.is_required() else field.default}
    given = "".join(
        f", {key}={value!r}" for key, value in {**rate, **spec.example_arguments}.items()
    )
    return f"""\
import torch
import hub

model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.GELU(), torch.nn.Linear(256, 256))
optimizer = hub.build("{spec.name}", model{targets}{given})
model(torch.randn(8, 256)).square().mean().backward()
optimizer.step()
optimizer.zero_grad()
"""


def _facts(spec: OptimizerSpec) -> Table:
    table = Table(show_header=False, box=None)
    distribution = default_registry().source("optimizer", spec.name).distribution
    extra = EXTRA_OF.get(spec.name)
    for key, value in (
        ("from", f"{distribution}, which builds a class of {spec.package} ({spec.license})"),
        ("install", f'pip install "hub[{extra}]"' if extra else ""),
        ("trains in", ", ".join(sorted(spec.precisions))),
        ("runs on", ", ".join(sorted(spec.devices))),
        ("traits", ", ".join(sorted(spec.traits))),
        ("per group", ", ".join(sorted(spec.per_group))),
        ("rest", _rest(spec)),
        ("under FSDP2", _sharded(spec)),
        *(("known failure", f"{check}: {why}") for check, why in spec.known_failures.items()),
        ("paper", spec.paper),
        ("homepage", spec.homepage),
    ):
        if value:
            table.add_row(key, value)
    return table


def _rest(spec: OptimizerSpec) -> str:
    """Return what trains the parameters that an optimizer leaves."""
    if Trait.MATRICES_ONLY not in spec.traits:
        return ""
    rest = default_registry().rest_of(spec)
    return f"{rest.name} trains all but matrices, unless rest.optimizer names another"


def _sharded(spec: OptimizerSpec) -> str:
    sharding = sharding_of(spec)
    if sharding is None:
        return f"refused: {spec.why_not_sharded}" if spec.why_not_sharded else "refused"
    return SHARDED[sharding.kind]


def _arguments(spec: OptimizerSpec) -> Table:
    table = Table(Column("argument", no_wrap=True), "type", "default", "meaning", box=SIMPLE_HEAD)
    for key, field in spec.arguments.model_fields.items():
        default = "required" if field.is_required() else repr(field.default)
        meaning = " ".join((field.description or "").split())
        table.add_row(key, type_name(field), default, meaning)
    return table
