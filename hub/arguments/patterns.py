"""Match the names of modules and parameters, for targets and rules alike."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from hub.errors import TargetModulesError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PLAIN = re.compile(r"[\w.\-]*")


def name_matcher(pattern: object, where: str) -> Callable[[str], bool]:
    """Return a function that tests dotted names.

    A plain name (letters, digits, `_`, `-` and dots) matches every name that contains it, as in
    Transformers' `optim_target_modules`, so "q_proj" finds "layers.0.attn.q_proj"; unlike there,
    numbers stay whole, so "layers.1" does not find "layers.10". Anything else is a regular
    expression that must match the whole name.

    Raises:
        TargetModulesError: The pattern is not a string, is empty, or does not compile.
    """
    if not isinstance(pattern, str) or not pattern:
        raise TargetModulesError(
            f"{shown(pattern)} is not a pattern",
            where=where,
            fix='pass a module name or a regular expression such as r".*\\.mlp\\..*"',
        )
    try:
        whole = re.compile(pattern).fullmatch
    except re.error as error:
        raise TargetModulesError(
            f"the regular expression {pattern!r} does not compile: {error}", where=where
        ) from error
    if _PLAIN.fullmatch(pattern):
        before = r"(?<!\d)" if pattern[0].isdigit() else ""
        after = r"(?!\d)" if pattern[-1].isdigit() else ""
        contained = re.compile(before + re.escape(pattern) + after).search
        return lambda name: contained(name) is not None
    return lambda name: whole(name) is not None


def closest_names(pattern: str, names: Iterable[str], count: int = 3) -> str:
    """Name the closest names to a pattern that matched nothing, in a sentence."""
    candidates = list(dict.fromkeys(names))
    last_parts = {name.rpartition(".")[2]: name for name in reversed(candidates)}
    wanted = re.sub(r"[^\w.\-]+", "", pattern).strip(".")
    near = get_close_matches(wanted, [*last_parts, *candidates[:2000]], n=count, cutoff=0.5)
    found = list(dict.fromkeys(last_parts.get(name, name) for name in near)) or candidates[:count]
    return f"the closest names are {', '.join(found)}" if found else "there is no such module"
