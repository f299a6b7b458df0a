"""`hub bench [NAME…]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import drawing
from hub.cli.command import complete_optimizer
from hub.terminal import Terminal

if TYPE_CHECKING:
    from hub.bench.result import Report


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Optimizers, each NAME or NAME:key=value,key=value; by default all.",
            autocompletion=complete_optimizer,
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder with a Transformers configuration.")
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", help="Instead: 512x8x512 is 512 matrices of 8x512. Repeatable."),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, bf16-mixed, fp16-mixed.")] = "fp32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="Threads on the CPU; by default as many as torch takes.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps to time; by default those of half a second.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture to this file, .png or .svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what a step costs: time, memory, and what of the bandwidth it reaches.

    Each optimizer steps in turn with torch's fused AdamW, on equal tensors, in a process by
    itself; without --model and --shape on a Llama of 25 million parameters.
    """
    import hub
    from hub.bench import Settings, run
    from hub.bench.settings import parse_shape
    from hub.experiments.contender import Contender

    settings = Settings(
        contenders=tuple(Contender.parse(name) for name in names or hub.list_optimizers()),
        model=model,
        shapes=tuple(parse_shape(text) for text in shapes or ()),
        precision=precision,
        device=device,
        threads=threads,
        steps=steps,
    )
    if plot is not None:
        drawing.check_format(plot, "--plot")
    progress = Terminal(stderr=True)
    with progress.status("") as status:
        report = run(settings, lambda label: status.update(f"measuring {label}"))
    _show(report, plot, as_json=as_json)
    failed = [row for row in report.rows if row.error]
    if failed and (names or len(failed) == len(report.rows)):
        raise typer.Exit(1)


def _show(report: Report, plot: Path | None, *, as_json: bool) -> None:
    from hub.bench import figure, table

    if plot is not None:
        drawing.save(figure.figure(report), plot, "--plot")
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        table.show(report, Terminal())
