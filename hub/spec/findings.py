"""What the user should know about a planned build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self, TypedDict, Unpack

from hub import errors
from hub.errors import HubError, PrecisionError
from hub.spec.traits import Trait

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


class Level(StrEnum):
    """How serious a finding is."""

    REFUSE = "refuse"
    """`hub.build` raises."""
    WARN = "warn"
    """`hub.build` warns with `HubWarning`."""
    ADJUST = "adjust"
    """`hub.build` replaces some of the arguments, and warns."""
    NOTE = "note"
    """Only the plan shows it."""


class _ByName:
    """Makes pydantic write an error class as its name, and read it back."""

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(self._name)
        )

    @staticmethod
    def _read(value: Any) -> type[HubError]:
        found = getattr(errors, value, None) if isinstance(value, str) else value
        if not (isinstance(found, type) and issubclass(found, HubError)):
            raise ValueError(f"{value!r} is not one of hub's errors")  # noqa: TRY004 - for pydantic
        return found

    @staticmethod
    def _name(error: type[HubError]) -> str:
        """Return the name of the class, or of its nearest base in hub."""
        return next(base.__name__ for base in error.__mro__ if base.__module__ == errors.__name__)


class _Details(TypedDict, total=False):
    where: str
    instead: Mapping[str, Any]
    without_traits: frozenset[Trait]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that the user should know about a planned build.

    Create it with `refuse`, `warn`, `adjust` or `note`. Its text is `what`, followed by `fix`.
    """

    level: Level
    """How hub reacts to it."""
    what: str
    """The problem, in one sentence."""
    fix: str = ""
    """What the user can do about it."""
    where: str = ""
    """The parameter, module or argument that it concerns, if not the whole build."""
    error: Annotated[type[HubError], _ByName()] = PrecisionError
    """The error that `hub.build` raises, if the level is `REFUSE`."""
    instead: Mapping[str, Any] = field(default_factory=dict)
    """The replacement arguments, by name."""
    without_traits: frozenset[Trait] = frozenset()
    """The traits that the optimizer loses with these arguments."""

    @classmethod
    def refuse(cls, error: HubError) -> Self:
        """Return a finding that makes `hub.build` raise this error."""
        return cls(
            level=Level.REFUSE,
            what=error.what,
            fix=error.fix,
            where=error.where,
            error=type(error),
        )

    @classmethod
    def warn(cls, what: str, fix: str = "", **details: Unpack[_Details]) -> Self:
        """Return a finding that `hub.build` warns about."""
        return cls(level=Level.WARN, what=what, fix=fix, **details)

    @classmethod
    def adjust(cls, what: str, fix: str = "", **details: Unpack[_Details]) -> Self:
        """Return a finding that replaces arguments with those in `instead`, with a warning."""
        return cls(level=Level.ADJUST, what=what, fix=fix, **details)

    @classmethod
    def note(cls, what: str, fix: str = "", **details: Unpack[_Details]) -> Self:
        """Return a finding that only the plan shows; it may replace a default silently."""
        return cls(level=Level.NOTE, what=what, fix=fix, **details)

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}" if self.fix else self.what
