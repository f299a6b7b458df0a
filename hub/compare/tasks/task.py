"""What is trained: four functions, and what has to be known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to train, the same for every optimizer.

    The functions run in the process of a training, after torch's generators were seeded.
    `examples/task.py` is a whole one.
    """

    name: str = ""
    """What a study calls it; a task of one's own is called by its import path."""
    model: Callable[[int], nn.Module]
    """Make the model in fp32 on the CPU. Takes the seed; the same one gives the same weights."""
    batches: Callable[[int], Iterable[Any]]
    """Return batches for as long as they are asked for: tensors on the CPU, or tuples, lists or
    mappings of them. Takes the seed."""
    loss: Callable[[nn.Module, Any], Tensor]
    """Return the loss of the model on a batch, a scalar; both are on the same device."""
    evaluate: Callable[[nn.Module], float]
    """Return the loss on held-out data, by which optimizers are compared: lower is better. The
    model is in its evaluation mode, and gradients are off."""
    summary: str = ""
    """What it is, in a few words."""
    unit: str = "nats a token"
    """Of the losses."""
    tokens: int | None = None
    """In a batch: how many predictions a step learns from."""
    steps: int = 100
    """How many a training has, if a study does not say."""
    target: float | None = None
    """A held-out loss that counts as reached, if a study does not say."""
    fingerprint: str = ""
    """A digest of what the losses depend on besides seeds: code, data, sizes. Results of two
    machines belong together only if it is the same."""
    quick: bool = False
    """Whether a training takes so little time that many share a process."""


def to_device(batch: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device; what else is in it stays as it is."""
    if hasattr(batch, "to"):  # tensors, and what collators of Transformers return
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
