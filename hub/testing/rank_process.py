"""What runs in a process that is one of several ranks."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path


@dataclass(frozen=True)
class Failure:
    """An exception of a rank, for the process that asked."""

    error: str
    """The exception's class."""
    text: str
    is_refusal: bool
    """Whether it is a HubError."""
    where: str = ""
    """The traceback."""

    def __str__(self) -> str:
        return f"{self.error}: {self.text}"


def serve(connection: Connection, rank: int, count: int, store: Path, timeout: float) -> None:
    """Join the other ranks, then run what the connection asks for, until it closes."""
    _set_up(rank, count, store, timedelta(seconds=timeout))
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            break
        connection.send(_outcome(function, arguments))
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do


def _set_up(rank: int, count: int, store: Path, timeout: timedelta) -> None:
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torchao compiles: the same arithmetic, for minutes
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    warnings.simplefilter("ignore")  # the checks in one process are about those
    import torch
    from torch import distributed

    from hub.testing.thread_count import thread_count

    torch.set_num_threads(thread_count())
    torch.manual_seed(rank)  # as jobs do for dropout; nothing else may depend on it
    if count > 1:
        distributed.init_process_group(
            "gloo",
            store=distributed.FileStore(str(store), count),  # type: ignore[attr-defined]
            rank=rank,
            world_size=count,
            timeout=timeout,
        )


def _outcome(function: Any, arguments: tuple[Any, ...]) -> Any:
    from hub.errors import HubError

    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 - the process that asked judges it
        trace = traceback.format_exc()
        return Failure(type(error).__name__, str(error), isinstance(error, HubError), trace)
