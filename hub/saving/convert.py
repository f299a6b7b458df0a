"""Convert old checkpoints with pickled objects to tensors and plain data, on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import CheckpointError
from hub.names.registry import default_registry
from hub.saving.plain import is_plain
from hub.saving.structure import check_structure
from hub.saving.trainer_run import parameter_names_beside

if TYPE_CHECKING:
    from pathlib import Path

    from hub.saving.plain import StateDict


def convert_checkpoint(
    name: str,
    source: Path,
    target: Path,
    *,
    trust: bool,
    names: Sequence[Sequence[str]] | None = None,
) -> None:
    """Convert an optimizer's pickled state dict to one that loads with `weights_only=True`.

    Args:
        name: hub's name of the optimizer that wrote it.
        source: A file with the state dict of the upstream class, such as `optimizer.pt` of
            Transformers' Trainer.
        target: The file to write.
        trust: Confirms that you trust the file: unpickling runs code that the file names.
        names: The parameter names in the order of the checkpoint's groups. With names, hub can load
            the file into any groups; without, only into groups of the same sizes. None uses the
            names that `hub.saving.trainer_run` finds beside the file, in a folder of Transformers'
            Trainer.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        CheckpointError: The file is not trusted, is not a state dict, or contains objects that the
            plugin cannot convert.
    """
    hooks = default_registry().plugin("optimizer", name).hooks
    if not trust:
        raise CheckpointError(
            "unpickling this file runs the code that it names",
            where=str(source),
            fix="confirm that you trust it: --trust",
        )
    state_dict = _read(source)
    group_of = {number: group for group in state_dict["param_groups"] for number in group["params"]}
    state = {}
    for number, value in state_dict["state"].items():
        converted = hooks.hub_convert_state(name=name, state=value, group=group_of.get(number, {}))
        state[number] = value if converted is None else dict(converted)
        if not is_plain(state[number]):
            raise CheckpointError(
                f"the state of parameter {number} contains objects that {name} cannot convert",
                where=str(source),
                fix="use the name of the optimizer that wrote the file",
            )
    groups = _named(state_dict["param_groups"], names or parameter_names_beside(source))
    torch.save({**state_dict, "state": state, "param_groups": groups}, target)


def _read(source: Path) -> StateDict:
    try:
        found = torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever unpickling raises
        raise CheckpointError(
            f"the file cannot be read: {type(error).__name__}: {error}",
            where=str(source),
            fix="install the package that wrote it, or check the path",
        ) from error
    try:
        check_structure(found)
    except CheckpointError as error:
        raise CheckpointError(
            f"the file does not contain an optimizer's state dict: {error.what}",
            where=str(source),
            fix="use a file with the result of optimizer.state_dict()",
        ) from error
    return dict(found)


def _named(
    groups: list[dict[str, Any]], names: Sequence[Sequence[str]] | None
) -> list[dict[str, Any]]:
    if names is None:
        return groups
    sizes, given = [len(group["params"]) for group in groups], [len(part) for part in names]
    if sizes != given:
        raise CheckpointError(
            f"the checkpoint's groups have {sizes} parameters, but {given} names were passed",
            where="names",
            fix="pass a list of names for each group, in the checkpoint's order",
        )
    return [{**group, "param_names": list(part)} for group, part in zip(groups, names, strict=True)]
