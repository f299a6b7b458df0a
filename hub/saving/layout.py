"""Check that the shapes of saved state fit the parameters."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hub.errors import CheckpointError
from hub.saving.plain import KEY, is_plain, tuples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.saving.plain import Group, State, StateDict

    Shape = tuple[int, ...]

_PACKED = (torch.uint8, torch.int8, torch.int16, torch.int32)
"""The dtypes of quantized state. Its scales have shapes that depend on the block size."""
_MATRIX = 2

_RELATIONS: dict[str, Callable[[Shape], Shape]] = {
    "same": lambda shape: shape,
    "rows": lambda shape: shape[:-1],
    "columns": lambda shape: (*shape[:-2], *shape[-1:]),
    "a column": lambda shape: (*shape[:-1], 1),
    "a row": lambda shape: (*shape[:-2], 1, *shape[-1:]),
}
"""How a state tensor's shape follows from its parameter's: a moment has the same shape, Adafactor's
leave out one dimension, or keep it with size 1 (`torch.optim.Adafactor`). `_relations` adds
AdEMAMix (bitsandbytes 0.50.2), which stacks moments, and Prodigy (prodigyopt 1.1.2), which keeps
every n-th element in one dimension."""


class _Pair(NamedTuple):
    """A parameter and its saved state."""

    name: str
    parameter: Tensor
    state: State
    group: Group


def describe_layout(optimizer: Optimizer, state_dict: StateDict) -> dict[str, Any]:
    """Return the shapes of parameters and their state by name, as plain data for the record.

    Each entry has the parameter's `shape` and the layout of its `state`, see `_layout`, or None for
    objects that the class itself turns into tensors after torch's hooks (flashoptim 0.1.4).
    """
    return {
        pair.name: {
            "shape": list(pair.parameter.shape),
            "state": _layout(pair.state) if is_plain(pair.state) else None,
        }
        for pair in _pairs(optimizer, state_dict)
    }


def check_layout(optimizer: Optimizer, state_dict: StateDict) -> None:
    """Check that an aligned state dict fits the shapes of the optimizer's parameters.

    With a record, each parameter must have its recorded shape, and its state the recorded layout.
    Without one, as the upstream class saves it, the shapes must follow from the parameters'; where
    that cannot be decided, as for quantized state, plugins check them.

    Raises:
        CheckpointError: A shape does not fit; the error names the parameter.
    """
    pairs = list(_pairs(optimizer, state_dict))
    if KEY in state_dict:
        for pair in pairs:
            _check_recorded(pair, state_dict[KEY]["parameters"].get(pair.name, {}))
        return
    _check_related(pair for pair in pairs if not _is_low_rank(pair))
    for pair in pairs:
        if _is_low_rank(pair):
            _check_low_rank(pair)


def _pairs(optimizer: Optimizer, state_dict: StateDict) -> Iterator[_Pair]:
    groups = zip(optimizer.param_groups, state_dict["param_groups"], strict=True)
    for group, saved in groups:
        names = group.get("param_names") or [f"parameter {number}" for number in saved["params"]]
        for name, parameter, number in zip(names, group["params"], saved["params"], strict=True):
            yield _Pair(name, parameter, state_dict["state"].get(number, {}), {**saved, **group})


def _layout(state: State) -> list[list[Any]]:
    """Return the keys of a state, each with a tensor's shape or another value's type name.

    Nested dictionaries are flattened: bitsandbytes 0.50.2 (`optim/optimizer.py`) packs some of the
    entries into one after torch's hooks.
    """
    found: list[list[Any]] = []
    for key, value in state.items():
        if isinstance(value, dict):
            found += _layout(value)
        elif isinstance(value, torch.Tensor):
            found.append([key, list(value.shape)])
        else:
            found.append([key, type(value).__name__])
    return sorted(found, key=str)


def _check_recorded(pair: _Pair, recorded: Mapping[str, Any]) -> None:
    ours, theirs = tuple(pair.parameter.shape), tuples(recorded.get("shape"))
    if theirs != ours:
        raise _other_shape(pair.name, f"the saved parameter has shape {theirs}", ours)
    expected, found = tuples(recorded.get("state") or ()), tuples(_layout(pair.state))
    # Without state a parameter starts fresh, like one that never had a gradient.
    lost = {str(key) for key, kind in set(expected) - set(found) if kind != "NoneType"}
    if found and lost:
        raise CheckpointError(
            f"the state of {pair.name} has changed since it was saved: {', '.join(sorted(lost))}",
            where="load_state_dict",
            fix="load the file as it was saved, or start without optimizer state",
        )


def _check_related(pairs: Iterator[_Pair]) -> None:
    """Check that each key's tensors relate to their parameters' shapes in one consistent way.

    The numbers of dimensions decide which relations are possible. If several are, as for the rows
    and columns of matrices, one of them has to hold for all tensors of the key.
    """
    by_key: dict[str, list[tuple[str, Shape, Shape]]] = defaultdict(list)
    for pair in pairs:
        for key, shape in _comparable(pair.state):
            by_key[key].append((pair.name, tuple(pair.parameter.shape), shape))
    for key, items in by_key.items():
        relations = [r for r in _relations(items) if _holds_in_dimensions(r, items)]
        wrong = [
            next((item for item in items if relation(item[1]) != item[2]), None)
            for relation in relations
        ]
        if wrong and None not in wrong:
            name, ours, theirs = next(item for item in wrong if item is not None)
            raise _other_shape(name, f"{key} in its saved state has shape {theirs}", ours)


def _comparable(state: State) -> Iterator[tuple[str, Shape]]:
    """Yield the keys and shapes of the state tensors whose shapes follow from the parameter's."""
    tensors = {
        key: value
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    }
    is_packed = any(value.dtype in _PACKED for value in tensors.values())
    for key, value in tensors.items():
        if not is_packed or value.dtype in _PACKED:
            yield key, tuple(value.shape)


def _relations(items: list[tuple[str, Shape, Shape]]) -> list[Callable[[Shape], Shape]]:
    stacked, parts = items[0][2][:1], items[0][2][-1:]
    _, ours, theirs = max(items, key=lambda item: prod(item[1]))
    every = -(-prod(ours) // prod(theirs))
    return [
        *_RELATIONS.values(),
        lambda shape: (*stacked, *shape),
        lambda shape: (*shape, *parts),
        lambda shape: (-(-prod(shape) // every),),
    ]


def _holds_in_dimensions(
    relation: Callable[[Shape], Shape], items: list[tuple[str, Shape, Shape]]
) -> bool:
    return all(len(relation(ours)) == len(theirs) for _, ours, theirs in items)


def _is_low_rank(pair: _Pair) -> bool:
    return bool(pair.group.get("low_rank") or "rank" in pair.group)


def _check_low_rank(pair: _Pair) -> None:
    """Check that at least one matrix of a low-rank state shares a dimension with the parameter."""
    ours = tuple(pair.parameter.shape)
    matrices = [
        tuple(tensor.shape)
        for value in pair.state.values()
        for tensor in (value if isinstance(value, list | tuple) else (value,))
        if isinstance(tensor, torch.Tensor) and tensor.ndim == _MATRIX
    ]
    sides = chain.from_iterable(zip(shape, ours, strict=False) for shape in matrices)
    if matrices and not any(theirs == own for theirs, own in sides):
        raise _other_shape(pair.name, f"its saved state has matrices of shapes {matrices}", ours)


def _other_shape(name: str, theirs: str, ours: Shape) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is from a model with other shapes: {theirs}, but the parameter has {ours}",
        where=f"load_state_dict, {name}",
        fix="load it into a model of the shapes it was saved with, or start without optimizer "
        "state",
    )
