"""The main function of a training process."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from hub.compare.events import Failed
from hub.errors import HubError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from hub.compare.corpus import Corpus
    from hub.compare.settings import Contender, Settings


def main(
    settings: Settings, contender: Contender, text: Corpus, sender: Connection, log: Path
) -> None:
    """Train, and send every event to the parent; a failure is an event too.

    Args:
        settings: What to train.
        contender: The optimizer to train with.
        text: What to train on.
        sender: Takes the events.
        log: Takes what is printed, so that packages do not write over the progress bars.
    """
    # Ctrl-C reaches the whole process group; the parent decides what happens to this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _redirect_output(log)
    faulthandler.enable()
    try:
        from hub.compare.training import train

        for event in train(settings, contender, text):
            sender.send(event)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is this row's result
        sender.send(Failed(_in_words(error), traceback.format_exc()))


def _redirect_output(log: Path) -> None:
    """Point standard output and error, those of C code included, at a file."""
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, HubError) else f"{type(error).__name__}: {error}"
