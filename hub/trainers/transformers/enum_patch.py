"""Add hub's names to Transformers' enum of optimizers."""

from __future__ import annotations

from typing import Any

from transformers.training_args import OptimizerNames

from hub.errors import HubError
from hub.names import describe, list_optimizers
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form

added: list[str] = []
"""The members of `OptimizerNames` that are hub's."""


def add_members() -> None:
    """Add a member for each of hub's names that the enum lacks."""
    theirs = {member.value for member in OptimizerNames}
    for name in all_names():
        if name not in theirs:
            _add(name)
            added.append(name)


def remove_members() -> None:
    """Remove the members that `add_members` added."""
    while added:
        _remove(added.pop())


def all_names() -> list[str]:
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
