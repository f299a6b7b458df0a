"""`hub lr NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.arguments.grammar import parse_arguments
from hub.cli import drawing
from hub.cli.command import complete_schedule
from hub.names.registry import default_registry
from hub.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

METRIC = "a metric that improves for the first half, and then stays the same"
"""What schedules by metric are shown with; see `example_metric`."""


def lr(
    name: Annotated[
        str, typer.Argument(help="A schedule, as in `hub list`.", autocompletion=complete_schedule)
    ],
    arguments: Annotated[list[str] | None, typer.Argument(help="Its own, each key=value.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of the training.")] = 1000,
    warmup: Annotated[int, typer.Option(min=0, help="Of these, the steps of warm-up.")] = 0,
    peak: Annotated[float, typer.Option("--lr", help="The optimizer's learning rate.")] = 1e-3,
    out: Annotated[
        Path | None, typer.Option(help="Write a picture to this file, .png or .svg.")
    ] = None,
) -> None:
    """Draw the learning rate over the steps of a training."""
    if out is not None:
        drawing.check_format(out, "--out")
    rates = curve(
        name, parse_arguments(", ".join(arguments or ())), steps=steps, warmup=warmup, lr=peak
    )
    title = " ".join([name, *(arguments or ())])
    if out is not None:
        drawing.save(drawing.figure(rates, title), out, "--out")
    console = Terminal()
    drawing.show(rates, title, console)
    if default_registry().scheduler(name).needs_metric:
        console.print(f"stepped with {METRIC}")
    if out is not None:
        console.print(f"the picture is {out}")


def curve(
    name: str, arguments: Mapping[str, Any], *, steps: int, warmup: int, lr: float
) -> list[float]:
    """Return the learning rate of each step, and the one after the last.

    Args:
        name: A schedule.
        arguments: Its own, as values or as texts.
        steps: Optimizer steps of the training.
        warmup: Of these, the steps of warm-up.
        lr: The optimizer's learning rate; Adafactor computes its own.

    Raises:
        HubError: The schedule cannot be built so.
    """
    from hub.building.schedule import build_scheduler_from

    optimizer = _example(name, lr)
    schedule: Any = build_scheduler_from(name, optimizer, warmup, steps, arguments)
    by_metric = default_registry().scheduler(name).needs_metric
    sign = -1 if getattr(schedule, "mode", "min") == "max" else 1
    rates = [_rate(optimizer)]
    for step in range(steps):
        optimizer.step()
        schedule.step(*[sign * example_metric(step / steps)] * by_metric)
        rates.append(_rate(optimizer))
    return rates


def example_metric(progress: float) -> float:
    """Return `METRIC` at a share of the training."""
    return 2.0 - min(progress, 0.5)


def _example(name: str, lr: float) -> Optimizer:
    """Return an optimizer that the schedule can drive, of one parameter with a gradient."""
    import torch

    from hub.building.build import build

    parameter = torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)
    holder = torch.nn.ParameterList([parameter])
    if name == "adafactor":  # the one schedule that asks its optimizer for the learning rate
        return build(name, holder, relative_step=True, warmup_init=True)
    return build("sgd", holder, lr=lr)


def _rate(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])
