"""`hub compare NAME [NAME…]`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.command import complete_optimizer, complete_schedule
from hub.cli.language import in_options
from hub.terminal import Terminal


def compare(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            help="Optimizers, each NAME or NAME:key=value,key=value.",
            autocompletion=complete_optimizer,
        ),
    ],
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Sequences per step.")] = 8,
    sequence_length: Annotated[int, typer.Option(help="Bytes per sequence.")] = 128,
    target_modules: Annotated[
        list[str] | None, typer.Option(help="For low-rank optimizers; by default all-linear.")
    ] = None,
    lr_scheduler: Annotated[
        str | None,
        typer.Option(help="A schedule, as in `hub list`.", autocompletion=complete_schedule),
    ] = None,
    warmup_steps: Annotated[int, typer.Option(help="Steps of warm-up of the schedule.")] = 0,
    max_grad_norm: Annotated[float | None, typer.Option(help="Clip gradients to this.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, bf16-mixed, fp16-mixed.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    seed: Annotated[
        int, typer.Option(help="Seed of the weights and of the order of the data.")
    ] = 0,
    data: Annotated[
        Path | None, typer.Option(help="A UTF-8 text; by default Python's own documentation.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder with a Transformers configuration; by default a small Llama."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.json, loss.png and report.html.")
    ] = None,
) -> None:
    """Train the same model with each optimizer; compare loss, speed and memory."""
    from hub.compare.settings import Contender, Settings

    settings = Settings(
        contenders=tuple(Contender.parse(name) for name in names),
        target_modules=tuple(target_modules or ()) or "all-linear",
        lr_scheduler=lr_scheduler,
        warmup_steps=warmup_steps,
        steps=steps,
        batch_size=batch_size,
        sequence_length=sequence_length,
        max_grad_norm=max_grad_norm,
        precision=precision,
        device=device,
        seed=seed,
        data=data,
        model=model,
        out=out,
    )
    from hub.compare import run

    console = Terminal()
    comparison = run(settings, console, partial(in_options, ctx=ctx))
    if out is not None:
        # Not wrapped: a terminal makes a link of a whole path.
        report = f"the report is {out / 'report.html'}"
        console.print(report, soft_wrap=True)
    if comparison.interrupted:
        raise typer.Exit(130)
    if any(row.error for row in comparison.rows):
        raise typer.Exit(1)
