"""Weights that take a while to compute, kept in the user's cache folder."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


def folder() -> Path:
    """Return where hub keeps what it can compute anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hub"


def stored(name: str, compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the weights in a file, which is written if it is not there or broken.

    Several processes may do so at the same time. Without a folder to write to, every call computes.
    """
    import torch

    path = folder() / name
    with suppress(Exception):  # a broken file can raise anything
        found: Mapping[str, Tensor] = torch.load(path, weights_only=True)
        return found
    weights = compute()
    with suppress(OSError):
        _write(path, weights)
    return weights


def _write(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a file that appears complete or not at all."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        new = Path(folder) / path.name
        torch.save(dict(weights), new)
        new.replace(path)
