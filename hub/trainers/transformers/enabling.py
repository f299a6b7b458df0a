"""Make plain `TrainingArguments(optim=...)` accept hub's names."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from hub.trainers.transformers import enum_patch, trainer_patch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def enable(*, override: bool = False) -> AbstractContextManager[object]:
    """Make plain `TrainingArguments(optim=...)` and its command line accept hub's names.

    This patches Transformers for the whole process: its enum `OptimizerNames` gets a member for
    each name that it lacks, and the Trainer's `get_optimizer_cls_and_kwargs` is replaced. `disable`
    undoes it. Not thread-safe. A pickled `training_args.bin` with such a name loads only after
    `enable` has been called.

    Prefer `hub_arguments`, which does not change the enum. Processes that this one starts are not
    affected; for those use `python -m hub.trainers.transformers -- COMMAND`.

    Args:
        override: Also build the names that Transformers has with hub.

    Returns:
        A context manager that calls `disable` at its end; using it is optional.
    """
    enum_patch.add_members()
    trainer_patch.enabled.clear()
    trainer_patch.enabled.update(enum_patch.all_names() if override else enum_patch.added)
    trainer_patch.install("enable")
    stack = ExitStack()
    stack.callback(disable)
    return stack


def disable() -> None:
    """Undo `enable`, if it was called.

    Arguments that were created with one of hub's names keep it, and can no longer train.
    """
    enum_patch.remove_members()
    trainer_patch.enabled.clear()
    trainer_patch.uninstall("enable")
