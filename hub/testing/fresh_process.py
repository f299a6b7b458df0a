"""Continue a run in a fresh process, from a file read with `weights_only=True`."""

from __future__ import annotations

import io
import multiprocessing
import traceback
from typing import TYPE_CHECKING

import torch

from hub.testing import preloading
from hub.testing.comparing import weights
from hub.testing.process_runs import Setting
from hub.testing.subject import train
from hub.testing.thread_count import thread_count

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from hub.testing.subject import Subject


def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a schedule that is halfway through when the run is saved."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, _factor)


def _factor(step: int) -> float:
    return 1.0 / (1 + step)


def continued(
    subject: Subject,
    file: Path,
    steps: int,
    start: int,
) -> dict[str, torch.Tensor]:
    """Return the weights after training on in another process, as a restarted job would.

    Args:
        subject: What to build there.
        file: Holds the state dicts "model", "optimizer" and "schedule".
        steps: How many steps to take.
        start: The number of the first of them.

    Raises:
        AssertionError: It failed there. The message has the traceback.
    """
    # The server has imported everything and never trained; each child is a copy of it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hub.testing.preloading"])
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, Setting.of(subject), file, steps, start)
    process = context.Process(target=_continue, args=arguments)
    with preloading.announced(_package(subject)):
        process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        process.join()
        result = f"the process ended with exit code {process.exitcode}"
    process.join()
    if isinstance(result, str):
        raise AssertionError(  # noqa: TRY004 - a failed check, whatever the type of the message
            f"resuming in a fresh process failed:\n{result}"
        )
    found: dict[str, torch.Tensor] = torch.load(io.BytesIO(result), weights_only=True)
    return found


def _package(subject: Subject) -> str:
    """Return the import package of the plugin, whose modules this process has imported."""
    return subject.registry.source("optimizer", subject.name).module.partition(".")[0]


def _continue(connection: Connection, setting: Setting, file: Path, steps: int, start: int) -> None:
    torch.set_num_threads(thread_count())
    try:
        model, optimizer = setting.subject().start()
        saved = torch.load(file, weights_only=True, map_location="cpu")
        following = schedule(optimizer)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        following.load_state_dict(saved["schedule"])
        train(model, optimizer, steps, start, after_step=following.step)
        buffer = io.BytesIO()
        torch.save(weights(model), buffer)
        connection.send(buffer.getvalue())
    except Exception:  # noqa: BLE001 - the parent raises it
        connection.send(traceback.format_exc())
