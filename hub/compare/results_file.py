"""Read the results of a study back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hub.arguments.values import from_json
from hub.compare.result import SCHEMA, Results
from hub.errors import HubError

NAME = "results.json"
"""The file in the folder of a study."""


def load(path: str | Path) -> Results:
    """Read results that `hub compare` wrote.

    Args:
        path: The file, or the folder that has it as `results.json`.

    Raises:
        HubError: The file cannot be read, is not JSON, has another version of the format, or lacks
            something that results have.
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    return parse(_read(file), where=str(file))


def parse(text: str, where: str = NAME) -> Results:
    """Read results from their JSON.

    Args:
        text: What `hub.compare.result.to_json` wrote.
        where: Where it is from, for messages.

    Raises:
        HubError: As `load`.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        plain = from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _unusable(f"this is not JSON: {error}", where) from error
    _check_version(plain, where)
    try:
        return TypeAdapter(Results).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _unusable(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}", where) from error


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _unusable("this is not UTF-8 text", str(file)) from error
    except OSError as error:
        raise HubError(
            f"there are no results: {error.strerror}",
            where=str(file),
            fix=f"name the folder of a study, which has {NAME}, or the file",
        ) from error


def _check_version(plain: Any, where: str) -> None:
    if not isinstance(plain, dict) or "schema" not in plain:
        raise _unusable("this is JSON, but not the results of a study", where)
    if plain["schema"] != SCHEMA:
        raise HubError(
            f"these results have the format {plain['schema']}, this version of hub reads {SCHEMA}",
            where=where,
            fix="use the version of hub that wrote them, which is in the file, under versions",
        )


def _unusable(what: str, where: str) -> HubError:
    return HubError(what, where=where, fix=f"name a {NAME} that hub compare wrote")
