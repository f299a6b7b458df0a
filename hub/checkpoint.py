"""Safe, portable state dicts: tensors and plain data that know which optimizer they belong to.

Everything goes through torch's state-dict hooks, so `step()` is never wrapped. `translate_state`,
`keep_state_dtypes` and `HookedLoading` are for plugins whose upstream class saves anything else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch

from hub.errors import CheckpointError, HubWarning

State = dict[str, Any]
"""The state of one parameter, as in `optimizer.state[parameter]`."""
Group = dict[str, Any]
"""One of `optimizer.param_groups`, its `params` being parameters or, in a state dict, numbers."""
StateDict = dict[str, Any]

KEY = "hub"
"""Where a state dict keeps its `Record`; torch ignores it."""


@dataclass(frozen=True)
class Record:
    """What a checkpoint says about the optimizer that wrote it."""

    version: str
    """hub's."""
    optimizer: str
    """The name, or the one whose checkpoints it shares."""
    arguments: dict[str, Any]
    shaping: frozenset[str] = field(default=frozenset(), compare=False)
    """The arguments that decide what the state looks like; not saved."""

    def plain(self) -> dict[str, Any]:
        """Return what is saved."""
        arguments = {key: value for key, value in self.arguments.items() if is_plain(value)}
        return {"version": self.version, "optimizer": self.optimizer, "arguments": arguments}


def attach(optimizer: torch.optim.Optimizer, record: Record) -> None:
    """Sign the optimizer's state dicts, and check and align those that are loaded into it."""

    def sign(_: torch.optim.Optimizer, state_dict: StateDict) -> StateDict:
        return {**state_dict, KEY: record.plain()}

    def align(optimizer: torch.optim.Optimizer, state_dict: StateDict) -> StateDict:
        if KEY in state_dict:
            _check_record(record, state_dict[KEY], state_dict["param_groups"])
        return _aligned(optimizer, state_dict)

    optimizer.register_state_dict_post_hook(sign)
    optimizer.register_load_state_dict_pre_hook(align, prepend=True)


def is_plain(value: Any) -> bool:
    """Whether `torch.load(weights_only=True)` reads it: tensors, numbers, text and containers."""
    if isinstance(value, tuple | list):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def _check_record(record: Record, saved: dict[str, Any], groups: list[Group]) -> None:
    """Refuse another optimizer's state, or state of another shape; explain other differences."""
    if saved["optimizer"] != record.optimizer:
        raise CheckpointError(
            f"this is a checkpoint of {saved['optimizer']}, not of {record.optimizer}",
            where="load_state_dict",
            fix=f"build {saved['optimizer']}, or start without optimizer state",
        )
    ours = record.plain()["arguments"]
    changed = {
        key: f"{key} {value!r} → {ours[key]!r}"
        for key, value in saved["arguments"].items()
        if key in ours and _comparable(value) != _comparable(ours[key])
    }
    unusable = [text for key, text in changed.items() if key in record.shaping]
    if unusable:
        raise CheckpointError(
            f"the checkpoint's state has another shape: {', '.join(unusable)}",
            where=f"load_state_dict of {record.optimizer}",
            fix="build with the checkpoint's values, or start without optimizer state",
        )
    if changed:
        in_groups = {key for group in groups for key in group}
        used = [
            f"{text} ({'checkpoint' if key in in_groups else 'new'} value is used)"
            for key, text in changed.items()
        ]
        warnings.warn(
            f"{record.optimizer} resumes with other arguments than were saved: {', '.join(used)}",
            HubWarning,
            stacklevel=5,
        )


def _comparable(value: Any) -> Any:
    return tuple(_comparable(item) for item in value) if isinstance(value, list | tuple) else value


def _aligned(optimizer: torch.optim.Optimizer, state_dict: StateDict) -> StateDict:
    """Return the state dict in the optimizer's own order of parameters, matched by name.

    Where either side has no names torch matches by position, which needs the same groups.
    """
    groups, saved = optimizer.param_groups, state_dict["param_groups"]
    if not all("param_names" in group for group in (*groups, *saved)):
        _check_sizes(groups, saved)
        return {
            **state_dict,
            "param_groups": [_completed(*pair) for pair in zip(groups, saved, strict=True)],
        }
    origin = {
        name: (number, group)
        for group in saved
        for name, number in zip(group["param_names"], group["params"], strict=True)
    }
    names = [name for group in groups for name in group["param_names"]]
    _check_names(set(names), set(origin))
    number_of = {name: number for number, name in enumerate(names)}
    # Those of parameters are numbers, and names where torch's distributed checkpoints come from.
    taken = {number for number, _ in origin.values()}
    state = {
        key: value
        for key, value in state_dict["state"].items()
        if not isinstance(key, int) and key not in taken
    }
    for name, number in number_of.items():
        if origin[name][0] in state_dict["state"]:
            state[number] = state_dict["state"][origin[name][0]]
    return {
        **state_dict,
        "state": state,
        "param_groups": [
            {
                **_completed(group, _origin_of(group, origin)),
                "params": [number_of[name] for name in group["param_names"]],
                "param_names": list(group["param_names"]),
            }
            for group in groups
        ],
    }


def _completed(group: Group, saved: Group) -> Group:
    """Return the saved group, with what only the live one has, which torch would drop."""
    own = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    return {**own, **saved}


def _origin_of(group: Group, origin: dict[str, tuple[int, Group]]) -> Group:
    """Return the saved group that a live one continues."""
    candidates = {id(origin[name][1]): origin[name][1] for name in group["param_names"]}
    if len(candidates) > 1:
        settings = [
            {
                key: value
                for key, value in saved.items()
                if key not in ("params", "param_names", "name")
            }
            for saved in candidates.values()
        ]
        if any(other != settings[0] for other in settings):
            raise CheckpointError(
                f"the group '{group.get('name', '')}' joins parameters that the checkpoint has in "
                "groups with other settings",
                where="load_state_dict",
                fix="build with the parameter rules and targets of the checkpoint",
            )
    saved = next(iter(candidates.values()), group)
    # What was never signed has no such key, and is taken as it is.
    if "name" in saved and saved.get("low_rank") != group.get("low_rank"):
        raise CheckpointError(
            f"the group '{group['name']}' is {'' if group.get('low_rank') else 'not '}low-rank, "
            "and its parameters are otherwise in the checkpoint",
            where="load_state_dict",
            fix="build with the target_modules of the checkpoint",
        )
    return saved


def _check_sizes(groups: list[Group], saved: list[Group]) -> None:
    ours, theirs = ([len(group["params"]) for group in side] for side in (groups, saved))
    if ours != theirs:
        raise CheckpointError(
            f"the checkpoint has {theirs} parameters in its groups, this optimizer {ours}, and "
            "without names they cannot be matched",
            where="load_state_dict",
            fix="build with groups like the checkpoint's",
        )


def _check_names(ours: set[str], theirs: set[str]) -> None:
    if ours == theirs:
        return
    shown = 3
    parts = [
        f"{label} {', '.join(sorted(names)[:shown])}"
        + (f" and {len(names) - shown} more" if len(names) > shown else "")
        for label, names in (
            ("only the checkpoint has", theirs - ours),
            ("only the model has", ours - theirs),
        )
        if names
    ]
    raise CheckpointError(
        f"the checkpoint is of other parameters: {'; '.join(parts)}",
        where="load_state_dict",
        fix="load it into the model it was written for, with the same parameters trainable",
    )


class HookedLoading:
    """Mixin for classes whose `load_state_dict` never calls torch's load hooks.

    bitsandbytes 0.50.2 replaces the method whole (`optim/optimizer.py`, `Optimizer8bit`).
    List it before the upstream class.
    """

    def load_state_dict(self: Any, state_dict: StateDict, *args: Any, **kwargs: Any) -> None:
        """Load as the class itself does, between torch's pre- and post-load hooks."""
        state_dict = state_dict.copy()
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = pre_hook(self, state_dict) or state_dict
        super().load_state_dict(state_dict, *args, **kwargs)  # type: ignore[misc]
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)


def translate_state(
    optimizer: torch.optim.Optimizer,
    save: Callable[[State, Group], State],
    load: Callable[[State, Group], State],
) -> None:
    """Save each parameter's state in another form than the optimizer works with.

    Args:
        optimizer: The optimizer to attach to.
        save: Returns tensors and plain data for one live state; must not change its argument.
        load: Returns the live state for one loaded state, whose tensors torch has already cast
            and moved to the parameter. Must leave live states alone: plain upstream checkpoints
            may hold those.
    """

    def saved(_: torch.optim.Optimizer, state_dict: StateDict) -> StateDict:
        group_of = {
            number: group for group in state_dict["param_groups"] for number in group["params"]
        }
        state = {
            number: save(value, group_of[number]) if number in group_of else value
            for number, value in state_dict["state"].items()
        }
        return {**state_dict, "state": state}

    def loaded(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in optimizer.state:
                    optimizer.state[parameter] = load(optimizer.state[parameter], group)

    optimizer.register_state_dict_post_hook(saved)
    optimizer.register_load_state_dict_post_hook(loaded)


def keep_state_dtypes(optimizer: torch.optim.Optimizer) -> None:
    """Load state tensors in the dtype they were saved in.

    `Optimizer.load_state_dict` (torch 2.13, `_process_value_according_to_param_policy`) casts them
    to the parameter's dtype, which rounds moments that an optimizer keeps in fp32 for bf16
    parameters. Attach before `translate_state`, whose hook then sees the exact tensors.
    """
    pending: list[StateDict] = []

    def before(_: torch.optim.Optimizer, state_dict: StateDict) -> None:
        pending[:] = [state_dict]

    def after(optimizer: torch.optim.Optimizer) -> None:
        saved = pending.pop()
        numbers = chain.from_iterable(group["params"] for group in saved["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        for number, parameter in zip(numbers, parameters, strict=True):
            for key, value in saved["state"].get(number, {}).items():
                optimizer.state[parameter][key] = _on_device(value, parameter.device)

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(after)


def _on_device(value: Any, device: torch.device) -> Any:
    """Copy a state value to the device, dtypes unchanged."""
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, list):
        return [_on_device(item, device) for item in value]
    return value
