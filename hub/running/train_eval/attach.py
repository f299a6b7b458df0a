"""Attach a follower to an optimizer, and remove it again."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from hub.running.steps import members_of, unwrapped
from hub.running.train_eval.follower import Follower

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from torch import nn
    from torch.optim import Optimizer


def follow_model_mode(optimizer: Optimizer, model: nn.Module) -> None:
    """Make an optimizer's weights follow the model's mode.

    The optimizer's own `train()` and `eval()`, which Transformers' Trainer (5.23) calls, then keep
    the training weights too.
    """
    follower = Follower(optimizer, model)
    live: Any = optimizer
    live.hub_modes = follower
    live.train, live.eval = follower.weights.to_training, follower.weights.to_evaluation


def stop_following(optimizer: Optimizer) -> None:
    """Stop following: the weights stay as they are, and `train()` and `eval()` are upstream's.

    Upstream's cannot read state that hub keeps otherwise, so with `rounding` and `offload` both
    methods stay hub's.
    """
    follower: Follower | None = vars(optimizer).pop("hub_modes", None)
    if follower is None:
        return
    follower.remove()
    if optimizer.hub_stepping.in_buckets:  # type: ignore[attr-defined]
        return
    for method in ("train", "eval"):
        vars(optimizer).pop(method, None)


def switches_weights(optimizer: Optimizer) -> bool:
    """Return whether an optimizer's weights follow the mode of its model."""
    return "hub_modes" in vars(optimizer)


def eval_mode(optimizer: Optimizer) -> AbstractContextManager[None]:
    """Switch to the evaluation weights inside the block, whatever mode the model is in.

    For optimizers with separate weights for evaluation (ScheduleFree); a no-op for all others. Not
    needed if the model's `train()` and `eval()` are called, which switch the weights of an
    optimizer that hub built. Wrappers that keep the optimizer in `.optimizer`, such as
    Accelerate's, are unwrapped.

    Raises:
        HubError: It is not an optimizer.
    """
    members = members_of(unwrapped(optimizer))
    return _holding([member.hub_modes for member in members if switches_weights(member)])


@contextmanager
def _holding(followers: Iterable[Follower]) -> Iterator[None]:
    with ExitStack() as stack:
        for follower in followers:
            if not follower.held_by_context:
                stack.enter_context(follower.holding_evaluation_weights())
        yield
