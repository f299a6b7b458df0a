"""`hub plan NAME`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.command import complete_optimizer
from hub.cli.language import in_options
from hub.errors import HubError
from hub.terminal import Terminal
from hub.text import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.nn import Module

    from hub.spec import Finding


def plan(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="An optimizer, as in `hub list`.", autocompletion=complete_optimizer),
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder with a Transformers configuration; by default a small Llama."),
    ] = None,
    optim_args: Annotated[str | None, typer.Option(help="key=value, key=value")] = None,
    target_modules: Annotated[
        list[str] | None, typer.Option(help="For low-rank optimizers; may be repeated.")
    ] = None,
    max_grad_norm: Annotated[float | None, typer.Option(help="Clip gradients to this.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, bf16-mixed, …")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what would be built for a model: arguments, groups and findings.

    The model is made on the meta device, so its size does not matter. The exit status is 1 if the
    build for the same model on a real device would be refused.
    """
    from hub.experiments.model import dtype_of, skeleton
    from hub.planning.prepare import plan as make_plan

    skeletal = skeleton(model, dtype_of(precision))
    arguments: dict[str, Any] = {
        "optim_args": optim_args,
        "target_modules": target_modules[0]
        if target_modules and len(target_modules) == 1
        else target_modules,
        "max_grad_norm": max_grad_norm,
        "precision": precision,
    }
    made = make_plan(name, skeletal, **arguments).materialized()
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
    else:
        console = Terminal()
        console.print(replace(made, findings=tuple(_in_options(ctx, *made.findings))))
        if not made.refused:
            console.print(_memory(name, skeletal, arguments), soft_wrap=True)
    if made.refused:
        raise typer.Exit(1)


def _memory(name: str, model: Module, arguments: Mapping[str, Any]) -> str:
    """Return the three numbers of `hub estimate` that every training has."""
    from hub.planning.estimate import estimate

    try:
        size = estimate(name, model, **arguments)
    except HubError as error:
        return f"memory: {error.what}"
    return (
        f"memory: weights {size_text(size.parameters)}, gradients {size_text(size.gradients)}, "
        f"state {size_text(size.state)}"
    )


def _in_options(ctx: typer.Context, *findings: Finding) -> Iterator[Finding]:
    """Yield findings in the words of this command."""
    for finding in findings:
        what, fix = (in_options(text, ctx) for text in (finding.what, finding.fix))
        yield replace(finding, what=what, fix=fix)
