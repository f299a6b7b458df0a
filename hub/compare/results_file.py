"""Read results back from their file, and the JSON Schema of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hub.compare.result import SCHEMA, Results, from_json
from hub.errors import HubError
from hub.text import shown

NAME = "results.json"
"""The file in the folder of a study."""
NUMBER = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "object",
            "properties": {"float": {"enum": ["inf", "-inf", "nan"]}},
            "required": ["float"],
            "additionalProperties": False,
        },
    ]
}
"""What JSON Schema says of a number that may be infinite."""


def load(path: str | Path) -> Results:
    """Read a results file.

    Args:
        path: The file, or the folder that has it as `results.json`.

    Raises:
        HubError: It cannot be read, is not one, or is one of another version.
    """
    path = Path(path) / NAME if Path(path).is_dir() else Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        plain = json.loads(text)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"are not JSON: {error}") from error
    version = plain.get("schema") if isinstance(plain, dict) else None
    if version != SCHEMA:
        raise HubError(
            f"these results have the format {shown(version)}; this hub reads {shown(SCHEMA)}",
            where=str(path),
            fix="repeat the study, or read it with the version of hub that wrote it",
        )
    try:
        return from_json(text, Results)
    except ValueError as error:
        raise _unusable(path, f"are incomplete or changed: {_first_line(error)}") from error


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a results file."""
    from pydantic import TypeAdapter

    found = _with_infinities(TypeAdapter(Results).json_schema())
    found["properties"]["schema"] = {"const": SCHEMA}
    found["required"] = ["schema", *found["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _with_infinities(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_infinities(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "number":
        return {key: value for key, value in node.items() if key != "type"} | NUMBER
    return {key: _with_infinities(value) for key, value in node.items()}


def _unusable(path: Path, what: str) -> HubError:
    return HubError(
        f"the results {what}",
        where=str(path),
        fix="name a results.json that hub compare wrote",
    )


def _first_line(error: ValueError) -> str:
    """Say where pydantic found what, without its links."""
    first = error.errors()[0] if hasattr(error, "errors") else None
    if first is None:
        return str(error).partition("\n")[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}"
