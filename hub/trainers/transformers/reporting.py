"""Show the optimizer that was built in a Trainer's loggers and its model card."""

from __future__ import annotations

import copy
import logging
import weakref
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from hub.building.config import is_adam_like

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import Trainer, TrainingArguments

    from hub.plans import Plan

logger = logging.getLogger(__name__)

_ASKED = "hub_asked"
"""The attribute, on arguments that describe what was built, with their original values."""


def report(trainer: Trainer, optimizer: Optimizer) -> None:
    """Log the plan, and let loggers and the model card report what was built.

    Both read the trainer's arguments (Transformers 5.23: `integrations/integration_utils.py` when
    training begins, `modelcard.py` after it). If an optimizer was passed to the trainer, these name
    another optimizer and its defaults. So the user's arguments are changed only while loggers read
    them, because another Trainer may share them. After training the trainer has a changed copy.
    """
    plan: Plan = optimizer.hub_plan  # type: ignore[attr-defined]
    logger.info("%s", plan)
    callbacks = trainer.callback_handler.callbacks
    callbacks[:] = [one for one in callbacks if not isinstance(one, _First | _Last)]
    first = _First(_shown(plan))
    callbacks.insert(0, first)
    callbacks.append(_Last(first, trainer))


def as_asked(args: TrainingArguments) -> TrainingArguments:
    """Return arguments as the user set them, if they are a copy that describes what was built.

    A value that was changed since, for example by a hyperparameter search, counts as the user's.
    """
    asked = getattr(args, _ASKED, None)
    if asked is None:
        return args
    restored = copy.copy(args)
    for key, (before, shown) in asked.items():
        if getattr(args, key) == shown:
            setattr(restored, key, before)
    return restored


def _shown(plan: Plan) -> dict[str, Any]:
    """Return values for the arguments that trainers report."""
    values = {argument.name: argument.value for argument in plan.arguments}
    shown = {
        "optim": plan.optimizer,
        "optim_args": ", ".join(
            f"{key}={value if isinstance(value, str) else repr(value)}"
            for key, value in values.items()
            if key not in ("lr", "weight_decay")  # reported by trainers in any case
        ),
        "optim_target_modules": list(plan.target_modules) or None,
    }
    if is_adam_like(values):
        shown |= {"adam_beta1": values["betas"][0], "adam_beta2": values["betas"][1]}
        shown |= {"adam_epsilon": values["eps"]}
    return shown


def _write(args: TrainingArguments, values: dict[str, Any]) -> dict[str, Any]:
    """Set attributes, and return their previous values."""
    before = {key: getattr(args, key) for key in values}
    for key, value in values.items():
        setattr(args, key, value)
    return before


class _First(TrainerCallback):  # type: ignore[misc]  # untyped
    """Shows the callbacks after it what was built."""

    def __init__(self, shown: dict[str, Any]) -> None:
        self.shown = shown
        self.before: dict[str, Any] = {}

    def on_train_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Write what was built into the arguments."""
        self.before = _write(args, self.shown)


class _Last(TrainerCallback):  # type: ignore[misc]  # untyped
    """Restores the user's arguments after all callbacks have read them."""

    def __init__(self, first: _First, trainer: Trainer) -> None:
        self._first = first
        self._trainer = weakref.ref(trainer)

    def on_train_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Write the user's values back into the arguments."""
        _write(args, self._first.before)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Give the trainer a copy of the arguments, for its model card."""
        trainer = self._trainer()
        if trainer is None:
            return
        own = as_asked(trainer.args)
        own = copy.copy(own) if own is trainer.args else own
        before = _write(own, self._first.shown)
        asked = {key: (before[key], value) for key, value in self._first.shown.items()}
        setattr(own, _ASKED, asked)
        trainer.args = own
