"""State dicts of sharded parameters: DTensors on every rank, whoever has the live state.

torch's distributed checkpoints need the same keys on every rank, and find each rank's rows by the
shape of a DTensor. So all state tensors are saved as DTensors split by rows like their parameter,
also those of other shapes, such as projections. What is loaded may be DTensors, or whole tensors
from one process.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils._pytree import MappingKey, tree_leaves, tree_map, tree_map_with_path

from hub.running.sharded.exchange import Form
from hub.running.sharded.meshes import is_sharded
from hub.running.sharded.owners import rows_by_rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.sharded.exchange import Exchange
    from hub.running.sharded.members import Member, Members
    from hub.saving.plain import StateDict


def export_state(optimizer: Optimizer, members: Members, state_dict: StateDict) -> StateDict:
    """Return an optimizer's state dict with the state of every parameter, as DTensors.

    Every rank has to call this.
    """
    state = dict(state_dict["state"])
    whole: dict[Exchange, list[tuple[int, Member]]] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        member = members.get(parameter)
        if member is None:
            continue
        if member.kind == "rows" and number in state:
            state[number] = tree_map_with_path(_rows_as_dtensors(member), state[number])
        elif member.kind == "whole":
            whole.setdefault(member.exchange, []).append((number, member))
    for exchange, numbered in whole.items():
        own = {n: state.get(n) for n, member in numbered if member.is_owned and state.get(n)}
        for number, _ in numbered:
            state.pop(number, None)
        state.update(_scattered(exchange, dict(numbered), own))
    return {**state_dict, "state": dict(sorted(state.items(), key=_numbers_first))}


def import_state(optimizer: Optimizer, members: Members, state_dict: StateDict) -> StateDict:
    """Return a state dict with what this rank has of each parameter's state.

    Every rank has to call this, with the same keys. The state dict is in the optimizer's order.
    """
    state = dict(state_dict["state"])
    whole: dict[Exchange, dict[int, Member]] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        if number not in state:
            continue
        member = members.get(parameter)
        if member is not None and member.kind == "whole":
            whole.setdefault(member.exchange, {})[number] = member
        else:
            state[number] = tree_map_with_path(_own_part(parameter, member), state[number])
    for exchange, numbered in whole.items():
        given = {number: state.pop(number) for number in numbered}
        state.update(_gathered(exchange, numbered, given))
    return {**state_dict, "state": state}


def place_state(parameter: Tensor, member: Member | None, state: Any) -> Any:
    """Return what this rank has of a state of whole tensors, or None."""
    if member is not None and member.kind == "whole":
        return state if member.is_owned else None
    return tree_map_with_path(_own_part(parameter, member), state)


def _parameters(optimizer: Optimizer) -> Iterator[Any]:
    return chain.from_iterable(group["params"] for group in optimizer.param_groups)


def _numbers_first(entry: tuple[Any, Any]) -> tuple[bool, Any]:
    """Sort what torch numbers before what it names."""
    key = entry[0]
    return (False, key) if isinstance(key, int) else (True, str(key))


def _is_sent(value: Any) -> bool:
    """Whether a value is a tensor with rows; all else is sent as it is."""
    return isinstance(value, torch.Tensor) and value.ndim > 0


def _scattered(
    exchange: Exchange, members: dict[int, Member], own: dict[int, Any]
) -> dict[int, Any]:
    """Return the state of all whole parameters, split by rows, given that of this rank's."""
    described = tree_map(lambda value: Form.of(value) if _is_sent(value) else value, own)
    everyone: list[Any] = exchange.gather(described)
    ranks = exchange.ranks
    pieces = [
        value.split(rows_by_rank(len(value), ranks))
        for value in tree_leaves(own)
        if _is_sent(value)
    ]
    expected = [
        [_rows_of(form, exchange) for form in tree_leaves(theirs) if isinstance(form, Form)]
        for theirs in everyone
    ]
    arrived = exchange.start(
        [list(to) for to in zip(*pieces, strict=True)] or [[]] * ranks, expected
    )
    found: dict[int, Any] = {}
    for theirs, rows in zip(everyone, arrived.wait(), strict=True):
        left = iter(rows)
        for number, form in theirs.items():
            member = members[number]
            found[number] = tree_map(
                lambda value, member=member, left=left: (
                    _as_dtensor(next(left).clone(), value.shape, member, 0)
                    if isinstance(value, Form)
                    else value
                ),
                form,
            )
    return found


def _gathered(
    exchange: Exchange, members: dict[int, Member], given: dict[int, Any]
) -> dict[int, Any]:
    """Return the state of this rank's whole parameters, given rows of all of them."""
    messages: list[list[Tensor]] = [[] for _ in range(exchange.ranks)]
    expected: list[list[Form]] = [[] for _ in range(exchange.ranks)]
    given = {
        number: tree_map(_split_by_rows(members[number]), value) for number, value in given.items()
    }
    for number, value in given.items():
        owner = members[number].owner
        assert owner is not None  # noqa: S101 - whole parameters have one
        for tensor in tree_leaves(value):
            if isinstance(tensor, DTensor):
                messages[owner].append(tensor.to_local())
                if owner == exchange.rank:
                    for forms, rows in zip(
                        expected, rows_by_rank(len(tensor), exchange.ranks), strict=True
                    ):
                        forms.append(Form((rows, *tensor.shape[1:]), tensor.dtype))
    pieces = zip(*exchange.start(messages, expected).wait(), strict=True)
    return {
        number: tree_map(
            lambda tensor: torch.cat(next(pieces)) if isinstance(tensor, DTensor) else tensor, value
        )
        for number, value in given.items()
        if members[number].is_owned
    }


def _rows_of(form: Form, exchange: Exchange) -> Form:
    """Return the form of this rank's rows of a tensor."""
    rows = rows_by_rank(form.shape[0], exchange.ranks)[exchange.rank]
    return replace(form, shape=(rows, *form.shape[1:]))


def _as_dtensor(rows: Tensor, shape: Sequence[int], member: Member, dimension: int) -> DTensor:
    """Return a DTensor of this shape, split over the ranks of a member, from this rank's part."""
    where = member.parameter
    return DTensor.from_local(
        rows,
        where.device_mesh,
        _placements(member, dimension),
        run_check=False,
        shape=torch.Size(shape),
        stride=torch.empty(shape, device="meta").stride(),
    )


def _placements(member: Member, dimension: int) -> list[Any]:
    return [
        place if place.is_replicate() else Shard(dimension) for place in member.parameter.placements
    ]


def _split_by_rows(member: Member) -> Callable[[Any], Any]:
    """Return a function that makes DTensors split by rows of other DTensors."""

    def split(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        return _with_placements(value, member.parameter, _placements(member, 0))

    return split


def _rows_as_dtensors(member: Member) -> Callable[[Any, Any], Any]:
    """Return a function that makes DTensors of this rank's part of the state."""

    def dtensor(path: Any, value: Any) -> Any:
        dimension = _split_dimension(member, path, value, tuple(member.local.shape))
        if dimension is None:
            return value
        parts = member.parameter.shape[0], member.rows[member.exchange.rank]
        shape = list(value.shape)
        shape[dimension] = shape[dimension] * parts[0] // parts[1]
        return _as_dtensor(value, shape, member, dimension)

    return dtensor


def _own_part(parameter: Any, member: Member | None) -> Callable[[Any, Any], Any]:
    """Return a function that turns a saved tensor into this rank's live one."""
    if not is_sharded(parameter):
        return lambda _, value: value

    def own(path: Any, value: Any) -> Any:
        dimension = _split_dimension(member, path, value, tuple(parameter.shape))
        if dimension is None:
            return value
        placements = parameter.placements if member is None else _placements(member, dimension)
        split = _with_placements(value, parameter, placements)
        return split if member is None else split.to_local()

    return own


def _split_dimension(
    member: Member | None, path: Any, value: Any, shape: tuple[int, ...]
) -> int | None:
    """Return the dimension of a state tensor that is split over the ranks, if one is.

    Args:
        member: Of the parameter; None for a native one, whose state has its shape.
        path: The keys of the tensor in the state.
        value: The tensor, or any other value.
        shape: The parameter's, or that of this rank's rows if that is what the tensor is about.
    """
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return None
    if tuple(value.shape[: len(shape)]) == shape:  # also two bytes for each element
        return 0
    before = value.ndim - len(shape)
    # AdEMAMix (bitsandbytes 0.50.2) stacks two moments in one tensor.
    if before >= 0 and tuple(value.shape[before:]) == shape:
        return before
    if member is None or any(
        isinstance(step, MappingKey) and step.key in member.unsplit for step in path
    ):
        return None
    return value.ndim - 1  # blocks, in the order of the rows


def _with_placements(value: Tensor, like: Any, placements: Sequence[Any]) -> DTensor:
    """Return a tensor as a DTensor with these placements on a parameter's mesh."""
    value = value.to(like.device)
    if not isinstance(value, DTensor):
        whole = value
    elif value.device_mesh == like.device_mesh:
        return value.redistribute(placements=placements)
    else:
        whole = value.full_tensor()
    return distribute_tensor(whole, like.device_mesh, placements, src_data_rank=None)
