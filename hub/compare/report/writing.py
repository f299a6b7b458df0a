"""Write the results of a study to a folder: for programs, as pictures, and as a page for people."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hub.compare.report import page, sheet
from hub.compare.report.pictures import Pictures
from hub.compare.result import to_json
from hub.errors import HubError

if TYPE_CHECKING:
    from pathlib import Path

    from hub.compare.result import Results

RESULTS, TRAININGS, PICTURES, PAGE = "results.json", "trainings.csv", "pictures", "report.html"


def write(results: Results, directory: Path) -> None:
    """Write `results.json`, `trainings.csv`, a folder `pictures`, and `report.html`.

    Each file is complete or not there. The results come first: what fails after them costs no
    training.

    Raises:
        HubError: The folder cannot be written to, or SciPy or matplotlib is missing.
    """
    make_directory(directory)
    _write(directory / RESULTS, to_json(results).encode())
    _write(directory / TRAININGS, sheet.csv(results).encode())
    drawn = Pictures.of(results)
    text = page.html(results, drawn)  # before the files: a legend is drawn into those
    make_directory(directory / PICTURES)
    for one in drawn.all:
        _write(directory / PICTURES / f"{one.name}.png", one.png())
    _write(directory / PAGE, text.encode())


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
