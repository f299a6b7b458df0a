"""`hub plan NAME`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.command import complete_optimizer
from hub.cli.language import in_options
from hub.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    import torch

    from hub.compare.model import skeleton
    from hub.planning.prepare import plan as make_plan

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision or "", torch.float32)
    made = make_plan(
        name,
        skeleton(model, dtype),
        optim_args=optim_args,
        target_modules=target_modules[0]
        if target_modules and len(target_modules) == 1
        else target_modules,
        max_grad_norm=max_grad_norm,
        precision=precision,
    ).materialized()
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
    else:
        Terminal().print(replace(made, findings=tuple(_in_options(ctx, *made.findings))))
    if made.refused:
        raise typer.Exit(1)


def _in_options(ctx: typer.Context, *findings: Finding) -> Iterator[Finding]:
    """Yield findings in the words of this command."""
    for finding in findings:
        what, fix = (in_options(text, ctx) for text in (finding.what, finding.fix))
        yield replace(finding, what=what, fix=fix)
