"""The folder that a trainer's own run left: what its optimizer's groups are, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub import backend
from hub.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

ARGUMENTS, CONFIGURATION = "training_args.bin", "config.json"


def parameter_names_beside(source: Path) -> list[list[str]] | None:
    """Return the names of each group's parameters for a low-rank run of Transformers' Trainer.

    They are those of the model whose configuration lies beside the file. The Trainer (5.23,
    `_setup_low_rank_optimizer` in trainer_optimizer.py) makes two groups, in the order of the
    model: all parameters but the weights of the target modules, and these.

    Args:
        source: The optimizer's file, `optimizer.pt` in `checkpoint-N`. What lies beside it is
            unpickled too: only for folders that are trusted.

    Returns:
        None where it is no such folder, or the run had no target modules.

    Raises:
        CheckpointError: The folder has both files, and the model cannot be made from them.
    """
    folder = source.parent
    if not all((folder / name).is_file() for name in (ARGUMENTS, CONFIGURATION)):
        return None
    try:
        # Reading the one imports Transformers, which its class is of.
        arguments = torch.load(folder / ARGUMENTS, map_location="cpu", weights_only=False)
        targets = getattr(arguments, "optim_target_modules", None)
        return None if targets is None else _split(_skeleton(folder), targets)
    except Exception as error:  # whatever unpickling, or a stranger's configuration, raises
        raise CheckpointError(
            f"the names of the parameters cannot be told from the model in this folder: "
            f"{type(error).__name__}: {error}",
            where=str(folder),
            fix="give them with --names",
        ) from error


def _skeleton(folder: Path) -> torch.nn.Module:
    """Return the model on the meta device; code that lies in the folder is never run."""
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
