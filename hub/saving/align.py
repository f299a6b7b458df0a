"""Match the parameters of a checkpoint by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.errors import CheckpointError
from hub.text import listed

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from hub.saving.plain import Group, StateDict


def align_by_name(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
    """Return the state dict in the optimizer's order of parameters, matched by name.

    If either side has no names, torch matches by position, which requires the same groups.
    """
    groups, saved = optimizer.param_groups, state_dict["param_groups"]
    if not all("param_names" in group for group in (*groups, *saved)):
        _check_sizes(groups, saved)
        return {
            **state_dict,
            "param_groups": [_with_live_keys(*pair) for pair in zip(groups, saved, strict=True)],
        }
    origin = {
        name: (number, group)
        for group in saved
        for name, number in zip(group["param_names"], group["params"], strict=True)
    }
    names = [name for group in groups for name in group["param_names"]]
    check_names(set(names), set(origin))
    number_of = {name: number for number, name in enumerate(names)}
    # Keys of parameters are numbers, or names in torch's distributed checkpoints.
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
                **_with_live_keys(group, _saved_group_of(group, origin)),
                "params": [number_of[name] for name in group["param_names"]],
                "param_names": list(group["param_names"]),
            }
            for group in groups
        ],
    }


def _with_live_keys(group: Group, saved: Group) -> Group:
    """Return the saved group with the live group's name and the keys that only the live one has.

    Saved values take precedence, as in torch, which would also drop keys missing from the file.
    """
    own = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    name = {"name": group["name"]} if "name" in group else {}
    return {**own, **saved, **name}


def _saved_group_of(group: Group, origin: dict[str, tuple[int, Group]]) -> Group:
    """Return the saved group that a live group continues."""
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
                f"the group '{group.get('name', '')}' merges parameters whose saved groups differ",
                where="load_state_dict",
                fix="build with the checkpoint's param_rules and target_modules",
            )
    saved = next(iter(candidates.values()), group)
    # A group that was not saved by hub has no name, and is accepted as it is.
    if "name" in saved and saved.get("low_rank") != group.get("low_rank"):
        raise CheckpointError(
            f"the group '{group['name']}' is low-rank, but was not when the checkpoint was saved"
            if group.get("low_rank")
            else f"the group '{group['name']}' is not low-rank, but was when the checkpoint was "
            "saved",
            where="load_state_dict",
            fix="build with the checkpoint's target_modules",
        )
    return saved


def _check_sizes(groups: list[Group], saved: list[Group]) -> None:
    ours, theirs = ([len(group["params"]) for group in side] for side in (groups, saved))
    if ours != theirs:
        raise CheckpointError(
            f"the checkpoint's groups have {theirs} parameters, this optimizer's have {ours}, and "
            "without names they cannot be matched",
            where="load_state_dict",
            fix="build with the checkpoint's groups",
        )


def check_names(ours: set[str], theirs: set[str]) -> None:
    """Check that a checkpoint has the parameters of an optimizer.

    Raises:
        CheckpointError: It has others, or lacks some; the error names them.
    """
    if ours == theirs:
        return
    parts = [
        f"{label} {listed(sorted(names))}"
        for label, names in (
            ("only the checkpoint has", theirs - ours),
            ("only the model has", ours - theirs),
        )
        if names
    ]
    raise CheckpointError(
        f"the checkpoint's parameters do not match the model's: {'; '.join(parts)}",
        where="load_state_dict",
        fix="load it into the model it was saved from, with the same parameters trainable",
    )
