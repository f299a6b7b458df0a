"""Errors for names that no installed distribution has, with the names most like them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from hub.errors import UnknownOptimizerError
from hub.names.catalogue import EXTRA_OF, install_command
from hub.names.spec_checks import PATH
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Kind = Literal["optimizer", "scheduler"]
_A: dict[Kind, str] = {"optimizer": "an optimizer", "scheduler": "a learning-rate schedule"}


def unknown_error(
    kind: Kind, name: str, names: Iterable[str], first: Collection[str]
) -> UnknownOptimizerError:
    """Return the error for an unknown name.

    Args:
        kind: What the name is meant to be of.
        name: The name.
        names: The installed names of this kind.
        first: Those to suggest before others.
    """
    known = set(names)
    if kind == "optimizer":
        if name in EXTRA_OF:
            return UnknownOptimizerError(
                f"optimizer '{name}' is known, but its plugin is not installed",
                where=name,
                fix=install_command(EXTRA_OF[name]),
            )
        if re.search("[.:]", name):
            return _not_a_path(name)
        known |= EXTRA_OF.keys()
    near = nearest_names(name, known, first)
    return UnknownOptimizerError(
        f"there is no {kind} '{name}'",
        where=name,
        fix=(f"did you mean {' or '.join(near)}? " if near else "") + f"see hub.list_{kind}s()",
    )


def other_kind_error(kind: Kind, name: str) -> UnknownOptimizerError:
    """Return the error for the name of a schedule where an optimizer is asked for, or likewise."""
    other: Kind = "scheduler" if kind == "optimizer" else "optimizer"
    how = {"scheduler": "hub.build_scheduler", "optimizer": "hub.build"}[other]
    return UnknownOptimizerError(
        f"'{name}' is {_A[other]}, not {_A[kind]}",
        where=name,
        fix=f"pass it to {how}, or choose one of hub.list_{kind}s()",
    )


def _not_a_path(name: str) -> UnknownOptimizerError:
    """Return the error for an import path that is not written as one."""
    module, _, last = name.rpartition(".")
    instead = f"{module}:{last}"
    return UnknownOptimizerError(
        f"{shown(name)} is neither a name nor an import path",
        where=name,
        fix=f"write '{instead}'"
        if PATH.fullmatch(instead)
        else "write an import path as package.module:Class",
    )


def nearest_names(
    name: str, known: set[str], first: Collection[str] = (), count: int = 3
) -> list[str]:
    """Return the known names most like an unknown one, those with the same beginning first."""
    from difflib import get_close_matches

    wanted = name.lower().replace("-", "_")
    alike = {one for one in known if wanted and f"{one}_".startswith(wanted)}
    alike |= {one for one in known if wanted.startswith(f"{one}_")}
    by_beginning = sorted(alike, key=lambda one: (one not in first, len(one), one))
    by_spelling = get_close_matches(wanted, sorted(known), n=count, cutoff=0.5)
    return list(dict.fromkeys([*by_beginning, *by_spelling]))[:count]
