"""Giving an optimizer a follower, and taking it off again."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from hub.running.steps import unwrapped
from hub.running.train_eval.follower import Follower

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn
    from torch.optim import Optimizer


def follow_model_mode(optimizer: Optimizer, model: nn.Module) -> None:
    """Let an optimizer's weights follow the model's mode.

    Its own `train()` and `eval()` then keep the training weights too; Transformers' Trainer (5.23)
    calls them.
    """
    follower = Follower(optimizer, model)
    live: Any = optimizer
    live.hub_modes = follower
    live.train, live.eval = follower.weights.to_training, follower.weights.to_evaluation


def stop_following(optimizer: Optimizer) -> None:
    """Leave an optimizer's weights as they are, and to its own `train()` and `eval()`."""
    follower: Follower | None = vars(optimizer).pop("hub_modes", None)
    if follower is None:
        return
    follower.remove()
    for method in ("train", "eval"):
        vars(optimizer).pop(method, None)


def switches_weights(optimizer: Optimizer) -> bool:
    """Whether an optimizer's weights follow the mode of its model."""
    return "hub_modes" in vars(optimizer)


def eval_mode(optimizer: Optimizer) -> AbstractContextManager[None]:
    """Give the model its evaluation weights inside the block, whatever mode it is in.

    For optimizers that train and evaluate with different weights (ScheduleFree); for all others it
    does nothing. Not needed where the model's `train()` and `eval()` are called, which switch an
    optimizer that hub built. Wrappers that keep the optimizer in `.optimizer`, as Accelerate's
    does, are seen through.

    Raises:
        HubError: It is no optimizer.
    """
    follower: Follower | None = getattr(unwrapped(optimizer), "hub_modes", None)
    return (
        nullcontext()
        if follower is None or follower.held_by_context
        else follower.holding_evaluation_weights()
    )
