"""`hub check NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

from hub.cli.command import complete_name
from hub.terminal import Terminal, literal

if TYPE_CHECKING:
    from rich.console import RenderableType


def check(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Optimizers and schedules, as in `hub list`.", autocompletion=complete_name
        ),
    ],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    processes: Annotated[
        int, typer.Option(min=1, help="With 2 or more, also the checks of several processes.")
    ] = 1,
) -> None:
    """Run the conformance kit: does an optimizer keep hub's promises on this machine?

    The exit status is 1 if it breaks one that its spec does not declare as a known failure.
    """
    from hub.experiments.devices import check_device
    from hub.testing import cases, run

    check_device(device)
    console = Terminal()
    results: dict[tuple[str, str, str], RenderableType] = {}
    reasons: list[str] = []
    known: list[str] = []
    for case in track(
        cases(names, device, processes=processes), "checking", console=console, transient=True
    ):
        key = (case.subject.name, case.check, case.subject.precision)
        try:
            run(case.check, case.subject)
        except Exception as error:  # noqa: BLE001 - an upstream class may raise anything
            results[key] = "known" if case.known else literal("broken", "red")
            found = known if case.known else reasons
            found.append(f"{case.id}: {case.known or error}")
        else:
            results[key] = literal("passes", "red") if case.known else "kept"
            if case.known:
                reasons.append(f"{case.id} passes: take it out of the spec's known_failures")
    precisions = list(dict.fromkeys(precision for _, _, precision in results))
    table = Table("optimizer", "check", *precisions, box=SIMPLE_HEAD)
    for name, check_name in dict.fromkeys((name, check_name) for name, check_name, _ in results):
        row = [results.get((name, check_name, precision), "–") for precision in precisions]
        table.add_row(name, check_name, *row)
    console.print(table)
    for reason in [*known, *reasons]:
        console.print(reason)
    if reasons:
        raise typer.Exit(1)
