"""Measure each optimizer in a fresh process, whatever becomes of it."""

from __future__ import annotations

import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from hub.bench.result import Row
from hub.errors import HubError
from hub.experiments import processes

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from hub.bench.settings import Settings
    from hub.experiments.contender import Contender

PRELOADED = ["hub.bench.measuring", "hub.building.build", "torch._dynamo"]


def row_of(settings: Settings, contender: Contender) -> Row:
    """Measure one optimizer in its own process; a failure or a crash is a row too."""
    context = processes.context(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(settings, contender, sender), daemon=True)
    try:
        process.start()
        sender.close()  # or the end of the process would not be the end of the stream
        row: Row = receiver.recv()
        process.join(processes.PATIENCE)
    except EOFError:
        process.join(processes.PATIENCE)
        row = Row(label=contender.label, error=processes.exit_reason(process.exitcode))
    finally:
        processes.stop(process)
        receiver.close()
    return row


def _main(settings: Settings, contender: Contender, sender: Connection) -> None:
    """Measure, and send the row; what packages print goes nowhere."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        try:
            from hub.bench.measuring import measure

            row = measure(settings, contender)
        except HubError as error:
            row = Row(label=contender.label, error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is this row's result
            row = Row(label=contender.label, error=f"{type(error).__name__}: {error}")
    sender.send(row)
