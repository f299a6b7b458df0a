"""Patch the one method in which Transformers' Trainer turns `optim` into a class.

Extending its table of handlers (`trainer_optimizer._OPTIMIZER_HANDLERS`, 5.23) would be less, but
`Trainer.get_optimizer_cls_and_kwargs` first splits `optim_args` at every comma and "=", which
breaks tuples.
"""

from __future__ import annotations

from typing import Any

from transformers import Trainer
from transformers.training_args import OptimizerNames

from hub.trainers.transformers.create import Chosen, checked_name

NAME = "get_optimizer_cls_and_kwargs"
_theirs = vars(Trainer)[NAME]
_users: set[str] = set()

enabled: set[str] = set()
"""The values of `OptimizerNames` that hub builds; it also builds all plain strings."""


def install(user: str) -> None:
    """Pass hub's names to hub, until every user has uninstalled the patch."""
    _users.add(user)
    setattr(Trainer, NAME, staticmethod(_choose))


def uninstall(user: str) -> None:
    """Restore Transformers' method once nobody uses the patch anymore."""
    _users.discard(user)
    if not _users:
        setattr(Trainer, NAME, _theirs)


def _choose(args: Any, model: Any = None) -> tuple[Any, dict[str, Any]]:
    """Replace `Trainer.get_optimizer_cls_and_kwargs`.

    The result is called in two ways, and `Chosen` supports both: `cls()(model, **kwargs)` by the
    Trainer, and `cls(groups, **kwargs)` by subclasses that group parameters themselves.
    """
    # Transformers' own arguments contain members of its enum; hub's contain plain strings.
    if isinstance(args.optim, OptimizerNames) and args.optim.value not in enabled:
        chosen: tuple[Any, dict[str, Any]] = _theirs.__func__(args, model)
        return chosen
    name = checked_name(getattr(args.optim, "value", args.optim))
    return Chosen(name, args=args, model=model), {"lr": args.learning_rate}
