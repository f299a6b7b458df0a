"""Sign the state dicts of an optimizer, and load them completely or not at all.

`hub.saving` lists the order of all hooks that take part.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import CheckpointError, HubError, HubWarning
from hub.measuring import plain_tensors
from hub.saving.align import align_by_name
from hub.saving.layout import check_layout, describe_layout
from hub.saving.plain import KEY
from hub.saving.structure import check_group_values, check_structure

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from hub.saving.plain import StateDict
    from hub.saving.record import Record


def sign_state_dicts(optimizer: Optimizer, record: Record) -> None:
    """Sign the optimizer's state dicts, and check and align those that are loaded into it.

    This also replaces `load_state_dict` on the instance, because the class's may read the state
    dict before it calls torch's hooks, and because a hook cannot undo what happens after it.
    """

    def sign(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        parameters = describe_layout(optimizer, state_dict)
        return {**state_dict, KEY: {**record.plain(), "parameters": parameters}}

    def align(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        aligned, differences = _aligned(optimizer, record, state_dict)
        for text in differences:
            warnings.warn(text, HubWarning, stacklevel=6)
        return aligned

    optimizer.register_state_dict_post_hook(sign)
    optimizer.register_load_state_dict_pre_hook(align, prepend=True)
    optimizer.load_state_dict = _guarded(optimizer)  # type: ignore[method-assign,assignment]
    optimizer.hub_record = record  # type: ignore[attr-defined]


def check_fits(optimizer: Any, state_dict: StateDict) -> None:
    """Check that a state dict of this structure can be loaded into a signed optimizer.

    Raises:
        CheckpointError: It cannot.
    """
    _aligned(optimizer, optimizer.hub_record, state_dict)


def _aligned(
    optimizer: Optimizer, record: Record, state_dict: StateDict
) -> tuple[StateDict, list[str]]:
    """Return a state dict in the optimizer's order, and how the record differs."""
    groups, saved = optimizer.param_groups, state_dict["param_groups"]
    is_signed = KEY in state_dict
    differences = list(record.differences(state_dict[KEY], groups, saved)) if is_signed else []
    state_dict = align_by_name(optimizer, state_dict)
    check_group_values(groups, state_dict["param_groups"])
    check_layout(optimizer, state_dict)
    return state_dict, differences


@contextmanager
def loading(optimizers: Iterable[Optimizer], name: str) -> Iterator[None]:
    """Restore the attributes of optimizers if loading into one of them fails.

    Args:
        optimizers: All that are loaded into.
        name: Of what is loaded, for the error.

    Raises:
        CheckpointError: Whatever else was raised.
    """
    # Loading replaces attributes, such as the state and the groups, but does not mutate them.
    before = [(vars(optimizer), dict(vars(optimizer))) for optimizer in optimizers]
    try:
        yield
    except Exception as error:
        for now, kept in before:
            now.clear()
            now.update(kept)
        if isinstance(error, HubError | Warning):
            raise
        raise CheckpointError(
            f"the state dict cannot be loaded: {type(error).__name__}: {error}",
            where=f"load_state_dict of {name}",
            fix="pass what optimizer.state_dict() returned, or start without optimizer state",
        ) from error


def _guarded(optimizer: Optimizer) -> Callable[[StateDict], None]:
    """Return a `load_state_dict` that leaves the optimizer unchanged if it raises."""
    live = weakref.ref(optimizer)

    def load_state_dict(state_dict: StateDict) -> None:
        inner: Any = live()
        if inner is None:
            raise CheckpointError(
                "the optimizer has been garbage-collected",
                where="load_state_dict",
                fix="keep a reference to the optimizer, and call its load_state_dict",
            )
        with loading([inner], type(inner).__name__):
            check_structure(state_dict)
            type(inner).load_state_dict(inner, state_dict)
            _unshare(inner.state, state_dict["state"])

    return load_state_dict


def _unshare(state: Mapping[Any, dict[str, Any]], given: Any) -> None:
    """Copy the tensors that share memory with the state dict, which may be a live optimizer's.

    torch (2.13, `Optimizer.load_state_dict`) does not copy tensors that need no cast and no move.
    """
    taken = _addresses(given)
    for entry in state.values():
        if isinstance(entry, dict):
            for key, value in entry.items():
                entry[key] = _unshared(value, taken)


def _unshared(value: Any, taken: set[int]) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone() if taken & _addresses(value) else value
    if isinstance(value, list | tuple):
        return type(value)(_unshared(item, taken) for item in value)
    inside = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    for key, item in inside.items():
        inside[key] = _unshared(item, taken)
    return value


def _addresses(value: Any) -> set[int]:
    """Return the address of each tensor's storage in a value."""
    return {t.untyped_storage().data_ptr() for t in plain_tensors(value) if t.numel()}
