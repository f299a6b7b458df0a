"""Measure optimizers one after the other."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import hub
from hub.bench import process
from hub.bench.result import Report
from hub.experiments import extra, versions
from hub.experiments.devices import check_device
from hub.experiments.model import read_configuration

if TYPE_CHECKING:
    from collections.abc import Callable

    from hub.bench.settings import Settings


def run(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> Report:
    """Measure each optimizer in a process of its own, and return all figures.

    Every measurement is a new process: a script must call this under
    `if __name__ == "__main__":`.

    Args:
        settings: What to measure.
        progress: Called with each optimizer, before it is measured.

    Raises:
        HubError: Nothing can be measured: a name is unknown, the model or the device cannot be
            used, or a package is missing.
    """
    check(settings)
    rows = []
    for contender in settings.contenders:
        progress(contender.label)
        rows.append(process.row_of(settings, contender))
    return Report(
        settings=_described(settings),
        device=_device(settings),
        date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        versions=versions.collect(tuple(each.name for each in settings.contenders)),
        rows=tuple(rows),
    )


def check(settings: Settings) -> None:
    """Find, before minutes of measuring, what would make them useless.

    Raises:
        HubError: As `run`.
    """
    for contender in settings.contenders:
        hub.describe(contender.name)
    check_device(settings.device)
    if settings.model is not None:
        extra.require("transformers")
        read_configuration(settings.model)


def _described(settings: Settings) -> dict[str, Any]:
    described = {**asdict(settings), "model": settings.model and str(settings.model)}
    del described["contenders"]
    return described


def _device(settings: Settings) -> str:
    import torch

    from hub.experiments.devices import device_in_words

    return device_in_words(torch.device(settings.device), settings.threads)
