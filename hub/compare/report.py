"""Write a comparison to a folder: figures for programs, a picture, and a page for people."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hub.arguments.values import to_json
from hub.compare import figure, page
from hub.errors import HubError

if TYPE_CHECKING:
    from pathlib import Path

    from hub.compare.result import Comparison, Row

RESULTS, PICTURE, PAGE = "results.json", "loss.png", "report.html"
COMMON_SETTINGS = (
    "steps",
    "batch_size",
    "sequence_length",
    "precision",
    "device",
    "seed",
    "max_grad_norm",
    "lr_scheduler",
    "warmup_steps",
    "target_modules",
)
"""The settings that are plain values and the same for every optimizer."""


def write(comparison: Comparison, directory: Path) -> None:
    """Write `results.json`, `loss.png` and `report.html`, each complete or not at all.

    The results come first: what fails after them costs no training.

    Raises:
        HubError: The folder cannot be written to, or matplotlib is missing.
    """
    make_directory(directory)
    results = json.dumps(to_json(to_dict(comparison)), indent=1, allow_nan=False)
    _write(directory / RESULTS, f"{results}\n".encode())
    picture = figure.png(comparison)
    _write(directory / PICTURE, picture)
    _write(directory / PAGE, page.html(comparison, picture).encode())


def make_directory(directory: Path) -> None:
    """Make the folder where it is missing.

    Raises:
        HubError: It cannot be made, or not be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _unwritable(directory, PermissionError("permission denied"))


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON takes it: bytes, seconds and nats, null for what is unknown."""
    settings = comparison.settings
    shared = {name: getattr(settings, name) for name in COMMON_SETTINGS}
    return {
        "settings": {"model": str(settings.model) if settings.model else None, **shared},
        "data": {"source": comparison.data, "sha256": comparison.data_sha256},
        "versions": comparison.versions,
        "interrupted": comparison.interrupted,
        "optimizers": [_row(row) for row in comparison.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    fields = asdict(row)
    del fields["contender"]
    curve = [point._asdict() for point in row.curve]
    return {"label": row.contender.label, **asdict(row.contender), **fields, "curve": curve}


def _write(path: Path, content: bytes) -> None:
    """Write beside the file first, so that whoever reads it sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    finally:
        draft.unlink(missing_ok=True)


def _unwritable(directory: Path, error: OSError) -> HubError:
    return HubError(
        f"the report cannot be written: {error.strerror or error}",
        where=str(directory),
        fix="name a folder that can be written to",
    )
