"""Compare optimizers: check, train each in turn, show and write what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hub
from hub.compare import corpus, extra, model, process, progress, report, table, versions
from hub.compare.recorder import Recorder
from hub.compare.result import Comparison
from hub.errors import HubError
from hub.names.registry import default_registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from hub.compare.corpus import Corpus
    from hub.compare.settings import Settings


def run(settings: Settings, console: Console, say: Callable[[str], str] = str) -> Comparison:
    """Train the same model on the same data with each optimizer, one after the other.

    A training that fails is a row with its error. Ctrl-C ends the comparison early: it returns
    and writes the rows so far (`Comparison.interrupted`).

    Every training is a spawned process: a script must call this under
    `if __name__ == "__main__":`.

    Args:
        settings: What to compare. With `out`, the report is written there.
        console: Shows progress and the table.
        say: Words the errors and warnings of trainings for the console.

    Raises:
        HubError: Nothing can be trained: a name is unknown, the data, model or device cannot be
            used, the folder for the report cannot be written, or a package is missing.
    """
    text = check(settings)
    recorders = [Recorder(settings, contender) for contender in settings.contenders]
    try:
        with progress.shown(recorders, console) as update:
            for recorder in recorders:
                process.train(recorder, settings, text, update)
    except KeyboardInterrupt:
        console.print("interrupted; the results so far are kept", style="yellow")
    comparison = Comparison(
        settings=settings,
        data=text.source,
        data_sha256=text.sha256,
        versions=versions.collect(tuple(one.name for one in settings.contenders)),
        rows=tuple(recorder.row() for recorder in recorders),
    )
    table.show(comparison, console, say)
    if settings.out is not None:
        report.write(comparison, settings.out)
    return comparison


def check(settings: Settings) -> Corpus:
    """Find, before minutes of training, what would make them useless; return the text.

    Raises:
        HubError: As `run`.
    """
    for contender in settings.contenders:
        hub.describe(contender.name)
    if settings.lr_scheduler is not None:
        default_registry().source("scheduler", settings.lr_scheduler)
    model.check(settings)
    check_device(settings.device)
    if settings.out is not None:
        extra.require("matplotlib")
        report.make_directory(settings.out)
    return corpus.load(settings.data, settings.sequence_length)


def check_device(device: str) -> None:
    """Check that torch has a device.

    Raises:
        HubError: It has not.
    """
    if not device.startswith("cuda"):
        return
    import torch

    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        raise HubError(
            f"{device} is not available: torch sees {torch.cuda.device_count()} CUDA devices",
            where="device",
            fix="cpu, or a lower index",
        )
