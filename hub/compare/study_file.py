"""A study as a YAML file, which repeats it."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.compare.settings import Settings
from hub.errors import HubError
from hub.experiments import extra
from hub.experiments.contender import Contender
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIXES = (".yaml", ".yml")


def read(path: Path, **changes: Any) -> Settings:
    """Read a study.

    Args:
        path: A YAML file with the keys of `Settings`. A contender is a line as on the command line
            or a mapping with the keys of `Contender`.
        changes: Settings that take the place of the file's.

    Raises:
        HubError: The file cannot be read, a key is unknown, or a value makes no sense.
    """
    yaml = extra.load("yaml")
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HubError(
            f"the study cannot be read: {error}", where=str(path), fix="name a YAML file"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("contenders"), list):
        raise HubError(
            "the study names no contenders",
            where=str(path),
            fix="contenders: [adamw_torch, 'sgd:lr=0.1']",
        )
    return settings_of({**values, **changes}, str(path))


def settings_of(values: Mapping[str, Any], where: str) -> Settings:
    """Return the settings that plain data describe.

    Raises:
        HubError: A key is unknown, or a value makes no sense.
    """
    from pydantic import TypeAdapter, ValidationError

    contenders = tuple(
        Contender.parse(one) if isinstance(one, str) else Contender.of(one)
        for one in values["contenders"]
    )
    try:
        return TypeAdapter(Settings).validate_python({**values, "contenders": contenders})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        known = [field.name for field in fields(Settings)]
        raise HubError(
            f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}",
            where=where,
            fix=f"one of {', '.join(known)}" if key not in known else f"not {shown(values[key])}",
        ) from error


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return what a file says that repeats a study: plain data, without what is default."""
    defaults = {field.name: field.default for field in fields(Settings)}
    said = {
        key: _plain(value)
        for key, value in asdict(settings).items()
        if key not in ("contenders", "out") and value != defaults[key]
    }
    return {"contenders": [_contender(one) for one in settings.contenders], **said}


def text(study: Mapping[str, Any]) -> str:
    """Return the YAML of a study.

    Raises:
        HubError: PyYAML is missing.
    """
    written: str = extra.load("yaml").safe_dump(dict(study), sort_keys=False, allow_unicode=True)
    return written


def _contender(contender: Contender) -> Any:
    """Return the line of a contender, or all that it needs beyond one."""
    own = {key: value for key, value in asdict(contender).items() if value not in (None, "")}
    line = Contender(contender.name, contender.optim_args)
    return contender.label if contender == line else _plain(own)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
