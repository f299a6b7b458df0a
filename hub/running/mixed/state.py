"""The state of several optimizers as one mapping, and as one state dict."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from hub.errors import CheckpointError
from hub.saving.align import check_names
from hub.saving.load import check_fits, loading
from hub.saving.plain import KEY
from hub.saving.record import check_writer
from hub.saving.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.saving.plain import Group, StateDict

MEMBERS = "members"
"""The key of the record under which each member has its own."""


class MemberStates(MutableMapping[Any, Any]):
    """The states of members, as `Optimizer.state` has them."""

    def __init__(self, members: Sequence[Optimizer]) -> None:
        self._members = members

    def __getitem__(self, parameter: Tensor) -> Any:
        return self._of(parameter)[parameter]

    def __setitem__(self, parameter: Tensor, value: Any) -> None:
        self._of(parameter)[parameter] = value

    def __delitem__(self, parameter: Tensor) -> None:
        del self._of(parameter)[parameter]

    def __contains__(self, parameter: object) -> bool:
        return any(parameter in member.state for member in self._members)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(member.state for member in self._members)

    def __len__(self) -> int:
        return sum(len(member.state) for member in self._members)

    def _of(self, parameter: Any) -> Any:
        """Return the state of the member that has a parameter."""
        for member in self._members:
            if parameter in member.state or any(
                parameter is own for group in member.param_groups for own in group["params"]
            ):
                return member.state
        raise KeyError(parameter)


def join(members: Sequence[Optimizer], groups: Sequence[Group]) -> StateDict:
    """Return one state dict of several optimizers.

    Args:
        members: The optimizers.
        groups: Their groups, in the order to save them in.
    """
    place = {id(group): number for number, group in enumerate(groups)}
    starts = [0, *accumulate(len(group["params"]) for group in groups)]
    joined: StateDict = {"state": {}, "param_groups": [{} for _ in groups]}
    records = []
    for member in members:
        own = member.state_dict()
        number_of: dict[Any, int] = {}
        for group, saved in zip(member.param_groups, own["param_groups"], strict=True):
            at = place[id(group)]
            numbers = range(starts[at], starts[at + 1])
            number_of |= dict(zip(saved["params"], numbers, strict=True))
            joined["param_groups"][at] = {**saved, "params": list(numbers)}
        state = {number_of.get(key, key): value for key, value in own["state"].items()}
        # torch's distributed checkpoints want an entry for each parameter once there is any state
        # (torch 2.13, `_split_optim_state_dict`), which LOMO never has.
        joined["state"] |= state or {number: {} for number in number_of.values()}
        records.append(own[KEY])
    if not any(joined["state"].values()):
        joined["state"] = {}
    return {**joined, KEY: _joined_record(records)}


def load_into(
    members: Sequence[Optimizer], groups: Sequence[Group], state_dict: StateDict
) -> list[Group]:
    """Load a joined state dict, or change nothing.

    Returns:
        The groups of the members, in the order of `groups`.

    Raises:
        CheckpointError: It does not fit.
    """
    places = {
        id(group): (member, index)
        for member in members
        for index, group in enumerate(member.param_groups)
    }
    order = [places[id(group)] for group in groups]
    with loading(members, "several optimizers"):
        check_structure(state_dict)
        if KEY in state_dict:
            check_writer(state_dict[KEY]["optimizer"], members[0].hub_record.optimizer)  # type: ignore[attr-defined]
        parts = [_part(member, members, state_dict) for member in members]
        for member, part in zip(members, parts, strict=True):
            check_fits(member, part)
        for member, part in zip(members, parts, strict=True):
            member.load_state_dict(part)
    return [member.param_groups[index] for member, index in order]


def _joined_record(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    overrides = {name: values for record in records for name, values in record["overrides"].items()}
    return {
        **records[0],
        "overrides": overrides,
        "parameters": {n: entry for record in records for n, entry in record["parameters"].items()},
        MEMBERS: [
            {
                **{key: value for key, value in record.items() if key != "parameters"},
                "names": list(record["parameters"]),
            }
            for record in records
        ],
    }


def _part(member: Optimizer, members: Sequence[Optimizer], state_dict: StateDict) -> StateDict:
    """Return what a joined state dict has for one member."""
    saved_groups = state_dict["param_groups"]
    if not all("param_names" in group for group in saved_groups):
        raise CheckpointError(
            "the checkpoint has no names of parameters, so its state cannot be divided among "
            f"{len(members)} optimizers",
            where="load_state_dict",
            fix="load one that hub.build's optimizer saved, or start without optimizer state",
        )
    check_names(_names(chain.from_iterable(m.param_groups for m in members)), _names(saved_groups))
    own = _names(member.param_groups)
    chosen = [_restricted(group, own) for group in saved_groups]
    numbers = set(chain.from_iterable(group["params"] for group in chosen))
    others = set(chain.from_iterable(group["params"] for group in saved_groups)) - numbers
    part = {
        **state_dict,
        "state": {key: value for key, value in state_dict["state"].items() if key not in others},
        "param_groups": [group for group in chosen if group["params"]],
    }
    if KEY in state_dict:
        part[KEY] = _record_of(own, member, state_dict[KEY])
    return part


def _record_of(own: set[str], member: Optimizer, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the member that trained these parameters.

    Raises:
        CheckpointError: Another optimizer trained some of them.
    """
    now: str = member.hub_record.optimizer  # type: ignore[attr-defined]
    saved = record.get(MEMBERS) or [{**record, "names": list(record["parameters"])}]
    before = {name: one for one in saved for name in one["names"] if name in own}
    for name, one in before.items():
        if one["optimizer"] != now:
            raise CheckpointError(
                f"{name} was trained by {one['optimizer']} when the checkpoint was saved, and is "
                f"by {now} now",
                where="load_state_dict",
                fix="build with the checkpoint's optimizers and param_rules",
            )
    parameters = {name: record["parameters"][name] for name in before}
    return {**next(iter(before.values())), "parameters": parameters}


def _restricted(group: Group, names: set[str]) -> Group:
    chosen = [
        (number, name)
        for number, name in zip(group["params"], group["param_names"], strict=True)
        if name in names
    ]
    return {
        **group,
        "params": [number for number, _ in chosen],
        "param_names": [name for _, name in chosen],
    }


def _names(groups: Any) -> set[str]:
    return {name for group in groups for name in group["param_names"]}
