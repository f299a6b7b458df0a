"""Check the structure of a state dict, before other code relies on it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import CheckpointError
from hub.saving.plain import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hub.saving.plain import Group

_RECORD = {
    "version": str,
    "optimizer": str,
    "arguments": Mapping,
    "overrides": Mapping,
    "parameters": Mapping,
}
_TEXT = "text"
_NUMBER = "a number"


def check_structure(state_dict: Any) -> None:
    """Check that a state dict has the structure that torch and hub save.

    Raises:
        CheckpointError: Something is missing, or has the wrong type.
    """
    _expect(state_dict, Mapping, "the state dict")
    groups = _item(state_dict, "param_groups", list | tuple, "the state dict")
    for number, group in enumerate(groups):
        _check_group(group, f"param_groups[{number}]")
    for key in ("params", "param_names"):
        _check_once([item for group in groups for item in group.get(key, ())], key)
    numbers = set(chain.from_iterable(group["params"] for group in groups))
    for key, value in _item(state_dict, "state", Mapping, "the state dict").items():
        if key in numbers:
            _expect(value, Mapping, f"state[{key!r}]")
    if KEY in state_dict:
        _check_record(state_dict[KEY])


def check_group_values(groups: Sequence[Group], saved: Sequence[Group]) -> None:
    """Check that each value of the saved groups is of the same kind as the live one.

    Raises:
        CheckpointError: One is text instead of a number, a number instead of a pair, and so on.
    """
    for group, other in zip(groups, saved, strict=True):
        for key in group.keys() & other.keys() - {"params", "param_names", "name"}:
            ours, theirs = _kind(group[key]), _kind(other[key])
            if None not in (ours, theirs) and ours != theirs:
                raise _damaged(f"a group has {key}={other[key]!r}, which should be {ours}")


def _check_group(group: Any, where: str) -> None:
    _expect(group, Mapping, where)
    params = _item(group, "params", list | tuple, where)
    if not all(isinstance(item, int | str) for item in params):
        raise _damaged(f"{where} has params that are neither numbers nor names")
    names = group.get("param_names", params)
    _expect(names, list | tuple, f"param_names of {where}")
    if len(names) != len(params):
        raise _damaged(f"{where} has {len(params)} parameters and {len(names)} names")
    if "param_names" in group and not all(isinstance(name, str) for name in names):
        raise _damaged(f"{where} has param_names that are not strings")


def _check_record(record: Any) -> None:
    _expect(record, Mapping, "'hub'")
    for key, kind in _RECORD.items():
        _item(record, key, kind, "'hub'")
    for name, values in record["overrides"].items():
        _expect(values, Mapping, f"the overrides of {name!r}")
    for name, entry in record["parameters"].items():
        _expect(entry, Mapping, f"the record of {name!r}")


def _check_once(items: list[Any], key: str) -> None:
    if len(set(items)) != len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise _damaged(f"{twice!r} appears twice in {key}")


def _item(mapping: Any, key: str, kind: Any, where: str) -> Any:
    if key not in mapping:
        raise _damaged(f"{where} has no {key!r}")
    _expect(mapping[key], kind, f"{key!r} in {where}")
    return mapping[key]


def _expect(value: Any, kind: Any, what: str) -> None:
    if not isinstance(value, kind):
        raise _damaged(f"{what} is of type {type(value).__name__}")


def _kind(value: Any) -> object:
    """Return the kind of a group's value, or None if it may be anything."""
    if isinstance(value, bool | int | float):
        return _NUMBER
    if isinstance(value, torch.Tensor):
        return _NUMBER if value.numel() == 1 else None
    if isinstance(value, str):
        return _TEXT
    if isinstance(value, list | tuple):
        return f"{len(value)} values"
    return None


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(
        what,
        where="load_state_dict",
        fix="pass what optimizer.state_dict() returned, or start without optimizer state",
    )
