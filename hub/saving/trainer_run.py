"""Find the names of parameters in the folder of a run of Transformers' Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub import backend
from hub.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

ARGUMENTS, CONFIGURATION = "training_args.bin", "config.json"


def parameter_names_beside(source: Path) -> list[list[str]] | None:
    """Return the names of each group's parameters in a low-rank run of Transformers' Trainer.

    The names come from the model whose configuration is in the same folder. The Trainer (5.23,
    `_setup_low_rank_optimizer` in trainer_optimizer.py) makes two groups, each in model order: the
    parameters outside the target modules' weights, and these weights.

    Args:
        source: The optimizer's file, `optimizer.pt` in `checkpoint-N`. `training_args.bin` beside
            it is unpickled too, so use this only for folders that you trust.

    Returns:
        The names, or None if it is not such a folder or the run had no target modules.

    Raises:
        CheckpointError: The folder has both files, but the model cannot be created from them.
    """
    folder = source.parent
    if not all((folder / name).is_file() for name in (ARGUMENTS, CONFIGURATION)):
        return None
    try:
        # Unpickling this imports Transformers, which defines its class.
        arguments = torch.load(folder / ARGUMENTS, map_location="cpu", weights_only=False)
        targets = getattr(arguments, "optim_target_modules", None)
        return None if targets is None else _split(_skeleton(folder), targets)
    except Exception as error:  # whatever unpickling, or an unknown configuration, raises
        raise CheckpointError(
            f"the parameter names cannot be determined from the model in this folder: "
            f"{type(error).__name__}: {error}",
            where=str(folder),
            fix="pass them with --names",
        ) from error


def _skeleton(folder: Path) -> torch.nn.Module:
    """Return the model on the meta device; code in the folder is never run."""
    transformers = backend.load("transformers")
    config = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    (architecture,) = config.architectures
    with torch.device("meta"):
        model: torch.nn.Module = getattr(transformers, architecture)(config)
    return model


def _split(model: torch.nn.Module, targets: Any) -> list[list[str]]:
    matches = backend.load("transformers.trainer_utils").check_target_module_exists
    everywhere = isinstance(targets, str) and targets.replace("_", "-") == "all-linear"
    taken = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and (everywhere or matches(targets, name))
    }
    names = [name for name, _ in model.named_parameters()]
    return [[n for n in names if n not in taken], [n for n in names if n in taken]]
