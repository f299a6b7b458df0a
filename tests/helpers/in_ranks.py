"""What the tests of several processes run in them."""

import os
import signal
import time

import torch
from torch import distributed


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
