"""What the tests of several processes run in them."""

import os
import signal
import time

import torch
from torch import distributed

from hub.errors import HubError
from hub.testing.process_checks import TRAINED
from hub.testing.process_model import EVEN, loss_of
from hub.testing.process_resumes import (
    FIRST,
    LAST,
    Route,
    resume_together,
    save_checkpoint,
    save_together,
)
from hub.testing.process_runs import Spread, train_together
from hub.testing.strategies import Strategy, whole_weights


def rank():
    return distributed.get_rank() if distributed.is_initialized() else None


def sum_of_ranks():
    total = torch.tensor(distributed.get_rank())
    distributed.all_reduce(total)
    return total.item()


def fail_on(which, error):
    """Raise on one rank, while the others wait for it."""
    if distributed.get_rank() == which:
        raise error
    distributed.barrier()


def hang_on(which):
    time.sleep(60 if distributed.get_rank() == which else 0)


def die_on(which):
    if distributed.get_rank() == which:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()


def fail(error):
    raise error


def fail_in_an_owner(setting, folder):
    """Train until a gradient has no singular values; return the error, and the run after it.

    Returns:
        Its class and text, how many seconds it took, whether a weight moved, the weights after more
        steps, and those after the same steps from a checkpoint that was written after the error.
    """
    spread = Spread(setting, EVEN, Strategy.FSDP2)
    optimizer = spread.build()
    train_together(spread.model, optimizer, FIRST)  # GaLore decomposes every second gradient
    before = whole_weights(spread.model)
    error, seconds = _error_of_step(spread.net, optimizer)
    moved = not all(map(torch.equal, before, whole_weights(spread.model)))
    optimizer.zero_grad()
    save_checkpoint(spread.model, optimizer, folder, (Route.FULL,))
    train_together(spread.model, optimizer, LAST)
    resumed = resume_together(setting, EVEN, Strategy.FSDP2, folder, Route.FULL)
    return error, seconds, moved, whole_weights(spread.model), resumed.weights


def _error_of_step(net, optimizer):
    loss_of(net, len(FIRST), distributed.get_rank()).backward()
    net.wide.weight.grad.fill_(torch.nan)
    distributed.barrier()
    start = time.monotonic()
    try:
        optimizer.step()
    except HubError as error:
        return (type(error).__name__, str(error)), time.monotonic() - start
    return None, 0.0


def save_and_lose_a_rank(setting, folder, how):
    """Write a checkpoint, and then lose a rank in the middle of a step."""
    save_together(setting, TRAINED, Strategy.FSDP2, folder, (Route.DISK,))
    spread = Spread(setting, TRAINED, Strategy.FSDP2)
    optimizer = spread.build()
    if distributed.get_rank() == 1:
        how(1)
    train_together(spread.model, optimizer, LAST)
