"""Say in options and commands what the library says in arguments and calls.

An error names what a program would change, such as `target_modules="all-linear"`. On the command
line that is `--target-modules all-linear`.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import typer

CALLS = {
    "hub.list_optimizers()": "`hub list`",
    "hub.list_schedulers()": "`hub list`",
    "hub.build_scheduler": "`hub lr`",
    "hub.build": "`hub plan`",
    "hub.estimate": "`hub estimate`",
}
"""The command for each call that has one."""
SHARED = frozenset({"target_modules", "max_grad_norm", "precision", "optim_args"})
"""The arguments of `hub.build` that are options wherever a command has them."""
OTHERWISE: Mapping[str, Mapping[str, str]] = {
    "lr": {
        "num_warmup_steps": "--warmup",
        "num_training_steps": "--steps",
        "optim_args": "key=value",
    },
    "bench": {"shapes": "--shape", "optim_args": "NAME:key=value"},
    "compare": {
        "num_warmup_steps": "--warmup-steps",
        "num_training_steps": "--steps",
        "optim_args": "NAME:key=value",
    },
}
"""By command, what has another name there."""
_WHERE = re.compile(r"^  where: (\w+)$", re.MULTILINE)
_QUOTED = re.compile(r"\b(\w+)=(['\"])([\w.-]+)\2")
_TEXT = re.compile(r"'(.*?)'|\"(.*?)\"")
_RAW = re.compile(r"\br(['\"])(.*?)\1")
_QUOTES_INPUT = "    "
"""How a line begins that shows a part of what was typed."""


def in_options(text: str, ctx: typer.Context) -> str:
    """Return a message with the words of a command in place of those of the library."""
    own = _options(ctx)
    shared = {key: option for key, option in own.items() if key in SHARED}
    words = {**shared, **OTHERWISE.get(ctx.command.name or "", {})}
    where = _WHERE.search(text)
    if where and where[1] in own:  # about an option, so no argument of an optimizer is meant
        words = {**own, **words}
    return "\n".join(
        line if line.startswith(_QUOTES_INPUT) else _translated(line, words)
        for line in text.split("\n")
    )


def _options(ctx: typer.Context) -> dict[str, str]:
    """Return the options of a command, by the name of the argument each of them sets."""
    options = {}
    for parameter in ctx.command.params:
        longest = max(parameter.opts, key=len)
        if parameter.name and longest.startswith("--"):
            options[parameter.name] = longest
    return options


def _translated(line: str, words: Mapping[str, str]) -> str:
    for call, instead in CALLS.items():
        line = line.replace(call, instead)
    for word, instead in words.items():
        line = _with_option(line, word, instead)
    # A shell takes quotes off, and has no raw strings.
    return _RAW.sub(lambda found: shlex.quote(found[2]), _QUOTED.sub(r"\1=\3", line))


def _with_option(line: str, word: str, option: str) -> str:
    line = re.sub(rf"^(  where: ){word}\b", rf"\g<1>{option}", line)
    if option.startswith("--"):
        value = r"(\[.*?\]|'.*?'|\".*?\"|[\w.+-]*\w)"
        line = re.sub(rf"\b{word}={value}", lambda found: _given(option, found[1]), line)
    if "_" in word:  # else it may be an ordinary word
        line = re.sub(rf"(?<![\w-]){word}\b", option, line)
    return line


def _given(option: str, value: str) -> str:
    """Write an option once for each text in a value, or for the value itself."""
    texts = [one or other for one, other in _TEXT.findall(value)] or [value]
    return " ".join(f"{option} {shlex.quote(text)}" for text in texts)
