"""Several processes on this machine that run functions together, as the ranks of one job."""

from __future__ import annotations

import atexit
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.testing import preloading
from hub.testing.rank_process import Failure, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

TIMEOUT = 60.0
GRACE = 5.0
"""How many seconds the other ranks have to finish once one has failed: they may wait for it."""


@dataclass(frozen=True)
class Rank:
    """One process and our end of its pipe."""

    process: ForkServerProcess
    connection: Connection

    def end(self) -> None:
        """Kill it: gloo's threads may hang."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Ranks:
    """Processes that start at the first call and then run one call after the other.

    More than one form a process group of gloo over the loopback interface; a single one has no
    group, as a plain training run has none. What a call leaves behind never reaches the next: after
    a crash, a hang or an error that is not hub's, the next call starts new processes.

    Args:
        count: How many ranks.
        group_timeout: After how many seconds a rank that waits for another one gives up.
    """

    def __init__(self, count: int, group_timeout: float = TIMEOUT) -> None:
        self.count = count
        self._group_timeout = group_timeout
        self._ranks: list[Rank] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def call(
        self, function: Callable[..., Any], *arguments: Any, timeout: float = TIMEOUT
    ) -> list[Any]:
        """Run a function on every rank; return each rank's result, or the `Failure` in its place.

        Args:
            function: Of a module that the processes can import.
            arguments: What to call it with, the same on every rank.
            timeout: After how many seconds the ranks that have not finished count as hanging.
        """
        if not self._ranks:
            self._start()
        for rank in self._ranks:
            rank.connection.send((function, arguments))
        results = self._collect(time.monotonic() + timeout)
        failures = [result for result in results if isinstance(result, Failure)]
        if failures and not (len(failures) == self.count and all(f.is_refusal for f in failures)):
            self.close()
        return results

    def close(self) -> None:
        """End the processes."""
        for rank in self._ranks:
            rank.end()
        self._ranks = []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        # The server has imported torch; each process is a copy of it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["hub.testing.preloading"])
        self._folder = tempfile.TemporaryDirectory()
        store = Path(self._folder.name) / "store"
        for number in range(self.count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve,
                args=(theirs, number, self.count, store, self._group_timeout),
                daemon=True,
            )
            with preloading.announced("hub"):
                process.start()
            theirs.close()
            self._ranks.append(Rank(process, ours))

    def _collect(self, deadline: float) -> list[Any]:
        results: dict[int, Any] = {}
        numbers = {id(rank.connection): number for number, rank in enumerate(self._ranks)}
        while len(results) < self.count and (left := deadline - time.monotonic()) > 0:
            waiting = [r.connection for n, r in enumerate(self._ranks) if n not in results]
            for connection in wait(waiting, left):
                number = numbers[id(connection)]
                results[number] = _received(self._ranks[number])
                if isinstance(results[number], Failure):
                    deadline = min(deadline, time.monotonic() + GRACE)
        hangs = Failure("TimeoutError", "the rank does not finish", is_refusal=False)
        return [results.get(number, hangs) for number in range(self.count)]


def _received(rank: Rank) -> Any:
    try:
        return rank.connection.recv()
    except (EOFError, ConnectionResetError):
        rank.process.join()
        text = f"the process ended with exit code {rank.process.exitcode}"
        return Failure("ProcessError", text, is_refusal=False)


@cache
def shared_ranks(count: int) -> Ranks:
    """Return the processes that all checks in this process share, which end with it."""
    ranks = Ranks(count)
    atexit.register(ranks.close)
    return ranks
