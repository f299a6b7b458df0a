"""Add hub's names to Transformers' enum of optimizers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from transformers.training_args import OptimizerNames

from hub.errors import HubError
from hub.names import describe, list_optimizers
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.trainers.transformers import trainer_patch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_added: list[str] = []


def enable(*, override: bool = False) -> AbstractContextManager[object]:
    """Make plain `TrainingArguments(optim=...)` and its command line accept hub's names.

    This patches Transformers for the whole process: its enum `OptimizerNames` gets a member for
    each name that it lacks, and the Trainer's `get_optimizer_cls_and_kwargs` is replaced. `disable`
    undoes it. Not thread-safe. A pickled `training_args.bin` with such a name loads only after
    `enable` has been called.

    Prefer `hub_arguments`, which does not change the enum.

    Args:
        override: Also build the names that Transformers has with hub.

    Returns:
        A context manager that calls `disable` at its end; using it is optional.
    """
    disable()
    theirs = {member.value for member in OptimizerNames}
    ours = _names()
    for name in ours:
        if name not in theirs:
            _add(name)
            _added.append(name)
    trainer_patch.enabled.update(ours if override else _added)
    trainer_patch.install("enable")
    stack = ExitStack()
    stack.callback(disable)
    return stack


def disable() -> None:
    """Undo `enable`, if it was called.

    Arguments that were created with one of hub's names keep it, and can no longer train.
    """
    while _added:
        _remove(_added.pop())
    trainer_patch.enabled.clear()
    trainer_patch.uninstall("enable")


def _names() -> list[str]:
    """Return every name, including those of layerwise forms."""
    found = []
    for name in list_optimizers():
        found.append(name)
        try:
            spec = describe(name)
        except HubError:  # a broken plugin, which is an error only when its name is used
            continue
        if has_layerwise_form(spec):
            found.append(name + LAYERWISE_SUFFIX)
    return found


def _add(value: str) -> None:
    """Add a member as `EnumType.__new__` does (Python 3.11); there is no public way to do it."""
    member: Any = str.__new__(OptimizerNames, value)
    member._name_, member._value_ = value.upper(), value
    member.__objclass__ = OptimizerNames
    member._sort_order_ = len(OptimizerNames)
    OptimizerNames._member_names_.append(member._name_)
    OptimizerNames._member_map_[member._name_] = member
    OptimizerNames._value2member_map_[value] = member
    # EnumType's own __setattr__ refuses members.
    type.__setattr__(OptimizerNames, member._name_, member)


def _remove(value: str) -> None:
    member: Any = OptimizerNames._value2member_map_.pop(value)
    OptimizerNames._member_names_.remove(member._name_)
    del OptimizerNames._member_map_[member._name_]
    type.__delattr__(OptimizerNames, member._name_)
