"""Start and end the processes in which optimizers run, and say how they ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess

PATIENCE = 10.0
"""Seconds that a process has to end by itself, or when told to, before it is killed."""
FORK_SERVER = "forkserver"
"""A process that has imported torch, and becomes two for each training; not on Windows."""


def context(preloaded: Sequence[str]) -> Any:
    """Return what starts fresh processes, with modules imported already where that can be.

    Args:
        preloaded: Modules that every process imports. None of them may start threads.
    """
    if FORK_SERVER not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload(list(preloaded))
    return multiprocessing.get_context(FORK_SERVER)


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
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
