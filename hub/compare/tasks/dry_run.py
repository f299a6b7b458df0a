"""Try the functions of a task once, before minutes of training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any

from hub.errors import HubError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from hub.compare.tasks.task import Task


def dry_run(task: Task, seed: int = 0) -> None:
    """Make the model twice, take a batch, and compute a loss, gradients and the held-out loss.

    All on the CPU. torch's generators are left as they were.

    Raises:
        HubError: One of the functions raises, or returns what cannot be trained or compared.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        module = _check_model(task, seed)
        batch = _check_batches(task, seed)
        _check_loss(task, module, batch)
        _check_evaluate(task, module)


def _check_model(task: Task, seed: int) -> nn.Module:
    import torch

    first, second = _seeded_model(task, seed), _seeded_model(task, seed)
    trained = [one for one in first.parameters() if one.requires_grad]
    if not trained:
        raise _wrong(task, "model", "nothing in it requires a gradient", "leave some unfrozen")
    for one in trained:
        if one.dtype != torch.float32 or one.device.type != "cpu":
            raise _wrong(
                task,
                "model",
                f"it has a parameter in {one.dtype} on {one.device}",
                "make it in fp32 on the CPU: a study converts and moves it",
            )
    if first is second or not _equal(first.state_dict(), second.state_dict()):
        raise _wrong(
            task,
            "model",
            "two models of one seed are different, or one and the same",
            "make a new one in each call, with random numbers from torch or from the seed",
        )
    return first


def _seeded_model(task: Task, seed: int) -> nn.Module:
    import torch

    torch.manual_seed(seed)
    with _reported(task, "model"):
        found: object = task.model(seed)
    if not isinstance(found, torch.nn.Module):
        raise _wrong(task, "model", f"it returned {shown(found)}", "return a torch.nn.Module")
    return found


def _check_batches(task: Task, seed: int) -> Any:
    firsts = []
    for _ in range(2):
        with _reported(task, "batches"):
            batches = task.batches(seed)
        if not isinstance(batches, Iterable):
            fix = "return something to iterate over"
            raise _wrong(task, "batches", f"it returned {shown(batches)}", fix)
        with _reported(task, "batches"):
            firsts += [batch for _, batch in zip(range(1), batches, strict=False)]
    if not firsts:
        raise _wrong(task, "batches", "there are none", "yield batches for ever")
    if not _equal(*firsts):
        raise _wrong(
            task,
            "batches",
            "the first batches of one seed are different",
            "take every random number from a generator with that seed",
        )
    return firsts[0]


def _check_loss(task: Task, module: nn.Module, batch: Any) -> None:
    import torch

    module.train()
    with _reported(task, "loss"):
        loss = task.loss(module, batch)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        what = f"of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else shown(loss)
        raise _wrong(task, "loss", f"it returned {what}", "return a tensor without dimensions")
    if not loss.isfinite():
        raise _wrong(task, "loss", f"before training it is {loss.item()}", "begin with less")
    if not loss.requires_grad:
        raise _wrong(task, "loss", "it has no gradient", "compute it by torch, and detach nothing")
    with _reported(task, "loss"):
        torch.autograd.backward(loss)
    if all(one.grad is None for one in module.parameters()):
        raise _wrong(task, "loss", "no parameter got a gradient", "compute it from the model")


def _check_evaluate(task: Task, module: nn.Module) -> None:
    import torch

    module.eval()
    with _reported(task, "evaluate"), torch.no_grad():
        loss = task.evaluate(module)
    if isinstance(loss, bool) or not isinstance(loss, Real):
        raise _wrong(task, "evaluate", f"it returned {shown(loss)}", "return a float")
    if not math.isfinite(loss):
        raise _wrong(task, "evaluate", f"before training it is {loss}", "begin with less")


def _equal(first: Any, second: Any) -> bool:
    """Return whether two models' weights, or two batches, have the same numbers."""
    import torch
    from torch.utils._pytree import tree_flatten

    (ours, our_form), (theirs, their_form) = tree_flatten(first), tree_flatten(second)
    return our_form == their_form and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        for a, b in zip(ours, theirs, strict=True)
    )


@contextmanager
def _reported(task: Task, function: str) -> Iterator[None]:
    """Word what a function of the task raises.

    Raises:
        HubError: It raises something else.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # whatever it raises
        raise _wrong(
            task, function, f"it raised {type(error).__name__}: {error}", "repair the function"
        ) from error


def _wrong(task: Task, function: str, what: str, fix: str) -> HubError:
    return HubError(what, where=f"{task.name}: {function}", fix=fix)
