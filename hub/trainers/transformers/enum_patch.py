"""hub's names in Transformers' own enum."""

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
    """Let plain `TrainingArguments(optim=...)` and its command line know every name of hub.

    This patches a class of Transformers, for the whole process: its enum `OptimizerNames` gets a
    member for each name that it lacks, and its Trainer's `get_optimizer_cls_and_kwargs` is
    replaced. `disable` undoes it. Not for several threads at once. A pickled `training_args.bin`
    with such a name loads only where `enable` has been called.

    Prefer `hub_arguments`, which leaves the enum alone.

    Args:
        override: Build names that Transformers has, too, by hub.

    Returns:
        A context manager that disables at its end, for those who want it.
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
    """Take back what `enable` has done, if anything.

    Arguments that were made with one of the names in between keep it, and cannot train any more.
    """
    while _added:
        _remove(_added.pop())
    trainer_patch.enabled.clear()
    trainer_patch.uninstall("enable")


def _names() -> list[str]:
    """Return every name, and that of each layerwise form."""
    found = []
    for name in list_optimizers():
        found.append(name)
        try:
            spec = describe(name)
        except HubError:  # a broken plugin, which is an error when its name is asked for
            continue
        if has_layerwise_form(spec):
            found.append(name + LAYERWISE_SUFFIX)
    return found


def _add(value: str) -> None:
    """Make a member as `EnumType.__new__` does (Python 3.11), which has no public way for it."""
    member: Any = str.__new__(OptimizerNames, value)
    member._name_, member._value_ = value.upper(), value
    member.__objclass__ = OptimizerNames
    member._sort_order_ = len(OptimizerNames)
    OptimizerNames._member_names_.append(member._name_)
    OptimizerNames._member_map_[member._name_] = member
    OptimizerNames._value2member_map_[value] = member
    # EnumType's own __setattr__ takes no members.
    type.__setattr__(OptimizerNames, member._name_, member)


def _remove(value: str) -> None:
    member: Any = OptimizerNames._value2member_map_.pop(value)
    OptimizerNames._member_names_.remove(member._name_)
    del OptimizerNames._member_map_[member._name_]
    type.__delattr__(OptimizerNames, member._name_)
