"""An optimizer with the settings that it is tried with, on one line or as a mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hub.arguments.grammar import parse_arguments, read_value
from hub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterable

IMPORT_PATH = re.compile(r"\s*[\w.]+:[A-Za-z_]\w*\s*(?=:|$)")
"""Of an optimizer at the beginning of a contender; `key=value` would follow a plain name."""
OWN_KEYS = (
    "label",
    "lr_scheduler",
    "warmup_steps",
    "max_grad_norm",
    "target_modules",
    "param_rules",
)
"""What is the contender's, and not an argument of its optimizer."""


@dataclass(frozen=True)
class Contender:
    """One optimizer with the settings it is to be tried with."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    name: str
    optim_args: str | Mapping[str, Any] = ""
    """`key=value,…` or a mapping, handed to `hub.build` as they are."""
    label: str = ""
    """What tables call it; by default its name and arguments."""
    lr_scheduler: str | None = None
    """None: that of the study, as for the others below."""
    warmup_steps: int | None = None
    max_grad_norm: float | None = None
    target_modules: str | tuple[str, ...] | None = None
    param_rules: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not self.label:
            given = self.optim_args
            if isinstance(given, Mapping):
                given = ",".join(f"{key}={value}" for key, value in given.items())
            object.__setattr__(self, "label", f"{self.name}:{given}" if given else self.name)

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read `NAME` or `NAME:key=value,…`, where a name may be an import path, `module:Class`.

        The keys in `OWN_KEYS` are settings of the contender, all others arguments.

        Raises:
            HubError: The name is missing.
            OptimArgsError: The arguments are malformed.
        """
        path = IMPORT_PATH.match(text)
        end = path.end() if path else text.find(":")
        name, rest = (text[:end], text[end + 1 :]) if end >= 0 else (text, "")
        if not name.strip():
            raise HubError(
                "the name of an optimizer is missing",
                where=repr(text),
                fix="NAME or NAME:key=value,key=value",
            )
        given = parse_arguments(rest)
        own = {key: read_value(given.pop(key)) for key in OWN_KEYS if key in given}
        # Untouched where it can be: messages about an argument point at its place in the text.
        arguments = ",".join(f"{key}={value}" for key, value in given.items()) if own else rest
        return cls.of({"name": name.strip(), "optim_args": arguments.strip(), **own})

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Contender:
        """Make a contender from a mapping, as a study's file has it.

        Raises:
            HubError: A key is unknown, or a value has the wrong type.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            raise HubError(
                f"{first['msg'][0].lower()}{first['msg'][1:]}",
                where=f"contender {values.get('name', '')}: {first['loc'][0]}",
                fix=f"name, optim_args, {', '.join(OWN_KEYS)}",
            ) from error

    @property
    def own_arguments(self) -> frozenset[str]:
        """The arguments that it sets itself: whatever is tuned, these are not."""
        given = self.optim_args
        keys = parse_arguments(given) if isinstance(given, str) else given
        return frozenset(keys)


def check_labels(contenders: Iterable[Contender]) -> None:
    """Check that each contender can be told from the others.

    Raises:
        HubError: Two have the same label, or there are none.
    """
    labels = [contender.label for contender in contenders]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise HubError(
            "an optimizer is named twice with the same settings",
            where=twice,
            fix="name it once, with different settings, or give one a label",
        )
