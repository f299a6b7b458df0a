"""The main function of a training process."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from hub.compare.execution.events import Ended
from hub.compare.result import Status
from hub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from hub.compare.result import Run
    from hub.compare.settings import Settings
    from hub.experiments.contender import Contender


def main(
    settings: Settings, jobs: Sequence[tuple[Contender, Run]], sender: Connection, log: Path
) -> None:
    """Train one after the other, and send every event to the parent; a failure is an event too.

    Args:
        settings: Of the study.
        jobs: What to train; each ends with an `Ended`.
        sender: Takes the events.
        log: Takes what is printed, so that packages do not write over the progress bars.
    """
    # Ctrl-C reaches the whole process group; the parent decides what happens to this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _redirect_output(log)
    faulthandler.enable()
    import torch

    if settings.jobs > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // settings.jobs))
    for contender, run in jobs:
        try:
            from hub.compare.execution.training import train

            for event in train(settings, contender, run):
                sender.send(event)
        except BrokenPipeError:  # the parent is gone
            return
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its result
            sender.send(Ended(Status.FAILED, _in_words(error), traceback.format_exc()))


def _redirect_output(log: Path) -> None:
    """Point standard output and error, those of C code included, at a file."""
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, HubError) else f"{type(error).__name__}: {error}"
