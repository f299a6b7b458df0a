"""Write files that are there complete or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hub.errors import HubError

if TYPE_CHECKING:
    from pathlib import Path


def make_directory(directory: Path) -> None:
    """Make a folder where it is missing.

    Raises:
        HubError: It cannot be made, or not be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _unwritable(directory, PermissionError("permission denied"))


def write_file(path: Path, content: bytes) -> None:
    """Write beside the file first, so that whoever reads it sees the old one or the new one.

    Raises:
        HubError: It cannot be written.
    """
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
        f"the results cannot be written: {error.strerror or error}",
        where=str(directory),
        fix="name a folder that can be written to",
    )
