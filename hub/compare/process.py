"""Run one training in a fresh process, whatever becomes of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hub.compare import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from hub.compare.corpus import Corpus
    from hub.compare.events import Event
    from hub.compare.recorder import Recorder
    from hub.compare.settings import Settings

PATIENCE = 10.0
"""Seconds that a process has to end by itself, or when told to, before it is killed."""
LOG_TAIL = 4000
"""How many of the last printed characters explain a crash."""


def train(
    recorder: Recorder, settings: Settings, text: Corpus, progress: Callable[[Recorder], None]
) -> None:
    """Train one contender in its own process, and record it.

    A fresh process has its own peak memory, and a crash in it is a result, not the end. On
    KeyboardInterrupt this stops the process, and keeps what is recorded so far.

    Args:
        recorder: Takes the events in.
        settings: What to train.
        text: What to train on.
        progress: Called after each event.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="hub-compare-") as folder:
        log = Path(folder) / "output.txt"
        process = context.Process(
            target=worker.main,
            args=(settings, recorder.contender, text, sender, log),
            daemon=True,
        )
        recorder.launch()
        try:
            with _interrupts_held_back():
                process.start()
            sender.close()  # or the end of the process would not be the end of the stream
            for event in _events(receiver, recorder):
                recorder.apply(event)
                progress(recorder)
            process.join(PATIENCE)
            if not recorder.ended:
                recorder.fail(exit_reason(process.exitcode), _tail(log))
                progress(recorder)
        finally:
            stop(process)
            receiver.close()


def _events(receiver: Connection, recorder: Recorder) -> Iterator[Event]:
    """Yield events until the last one, or until the process is gone."""
    # What the process started may outlive it with the stream open: the last event ends it too.
    while not recorder.ended:
        try:
            yield receiver.recv()
        except (EOFError, OSError):
            return


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let a Ctrl-C wait, and let a process that is started meanwhile never see one.

    It would otherwise die of it with a traceback while it still imports Python.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(process: BaseProcess) -> None:
    """End a process, if it has not ended by itself."""
    if process.is_alive():
        process.terminate()
        process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def exit_reason(code: int | None) -> str:
    """Say how a process ended that sent no result."""
    if code is None:
        return "its process hung up without a result"
    if code >= 0:
        return f"its process ended without a result (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = "; the system does this when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{memory}"


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-LOG_TAIL:].strip()
    except FileNotFoundError:
        return ""
