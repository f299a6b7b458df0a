"""Write `docs/plugin-reference.md` from the docstrings of the plugin contract.

`python docs/generate_plugin_reference.py` writes it; with `--check` it fails where the page is not
what the docstrings say.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hub import arguments, hookspecs, spec
from hub.testing import CHECKS
from hub.testing.schedule_checks import CHECKS as SCHEDULE_CHECKS

PAGE = Path(__file__).with_name("plugin-reference.md")
INTRODUCTION = """\
# Plugin reference

<!-- Written by docs/generate_plugin_reference.py: change that, or the docstrings. -->

Every field, trait, hook and check of the plugin contract. [Write a plugin](write-a-plugin.md) shows
how they work together.
"""
DATA = (
    spec.OptimizerSpec,
    spec.SchedulerSpec,
    spec.Contrast,
    spec.Finding,
    spec.BuildContext,
    spec.ParameterGroup,
    spec.Precision,
)
PROMISE = re.compile(r"((?:P\d+(?:, )?)+): ")


class Attribute(NamedTuple):
    """An attribute of a class, as its source has it."""

    name: str
    type: str
    default: str
    text: str


def attributes(of: type) -> list[Attribute]:
    """Return the attributes that a class body assigns or annotates, with their docstrings."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(of))).body
    return list(_attributes(getattr(definition, "body", [])))


def _attributes(body: list[ast.stmt]) -> Iterator[Attribute]:
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        value = following.value if isinstance(following, ast.Expr) else None
        text = value.value if isinstance(value, ast.Constant) else ""
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=default):
                written = ast.unparse(default) if default else ""
                yield Attribute(name, ast.unparse(annotation), written, _one_line(text))
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=default)):
                yield Attribute(name, "", repr(default), _one_line(text))


def page() -> str:
    """Return the text of `docs/plugin-reference.md`."""
    parts = [INTRODUCTION, *map(_data, DATA), _enumeration(spec.Trait), _enumeration(spec.Level)]
    return "\n".join([*parts, _hooks(), _blocks(), *_checks()])


def _data(of: type) -> str:
    fields = attributes(of)
    rows = [
        f"| `{one.name}` | {_code(one.type)} | {_code(_default(one.default))} | {one.text} |"
        for one in fields
    ]
    names = {one.name for one in fields}
    methods = [
        f"- `{name}{_signature(method)}`: {_summary(method)}"
        for name, method in vars(of).items()
        if name[0] != "_" and name not in names and callable(getattr(method, "__func__", method))
    ]
    table = ["| field | type | default | |", "|---|---|---|---|", *rows]
    return "\n".join([_head(of), *table, *([""] if methods else []), *methods]) + "\n"


def _default(text: str) -> str:
    found = re.fullmatch(r"field\(default_factory=(\w+)\)", text)
    return f"{found[1]}()" if found else text


def _enumeration(of: type) -> str:
    rows = [f"| `{one.name}` | {one.text} |" for one in attributes(of)]
    return "\n".join([_head(of), "| | |", "|---|---|", *rows]) + "\n"


def _head(of: type) -> str:
    return f"## {of.__name__}\n\n{_summary(of)}\n"


def _hooks() -> str:
    rows = [
        f"| `{name}{_signature(hook)}` | {_summary(hook)} |"
        for name, hook in vars(hookspecs).items()
        if name.startswith("hub_")
    ]
    lines = ["## Hooks\n", "Marked with `hub.hookimpl`, in the module of the entry point.\n"]
    return "\n".join([*lines, "| hook | |", "|---|---|", *rows]) + "\n"


def _blocks() -> str:
    """Describe what an arguments model can be made of."""
    rows = [
        f"| `{name}` | {_summary(value)} |"
        for name, value in vars(arguments).items()
        if isinstance(value, type) and value.__module__.startswith(arguments.__name__)
    ]
    types = [
        f"| `{name}` | {_of_annotated(value)} |"
        for name, value in vars(arguments).items()
        if hasattr(value, "__metadata__")
    ]
    head = ["## Building blocks of arguments\n", "From `hub.arguments`.\n", "| | |", "|---|---|"]
    return "\n".join([*head, *rows, *types]) + "\n"


def _of_annotated(kind: object) -> str:
    metadata = kind.__metadata__  # type: ignore[attr-defined]
    (field,) = (one for one in metadata if not isinstance(one, arguments.Search))
    bounds = ", ".join(
        f"{sign} {getattr(bound, key)}"
        for bound in field.metadata
        for key, sign in (("ge", "at least"), ("gt", "above"), ("lt", "below"), ("le", "at most"))
        if hasattr(bound, key)
    )
    ranges = [_range(one) for one in metadata if isinstance(one, arguments.Search)]
    number = f"A number {bounds}." if bounds else ""
    return " ".join(filter(None, [field.description, number, *ranges[-1:]]))


def _range(search: arguments.Search) -> str:
    of_default = " times the default" if search.times_default else ""
    return f"Tuned from {search.low:g} to {search.high:g}{of_default}, on a {search.scale} scale."


def _checks() -> Iterator[str]:
    for title, checks in (("Checks", CHECKS), ("Checks of schedules", SCHEDULE_CHECKS)):
        functions = {name: getattr(check, "function", check) for name, check in checks.items()}
        rows = [_check(name, _summary(function)) for name, function in functions.items()]
        head = ["| check | what it measures |", "|---|---|"]
        yield "\n".join([f"## {title}\n", *head, *rows]) + "\n"


def _check(name: str, text: str) -> str:
    promises = PROMISE.match(text)
    meaning = text[promises.end() :] if promises else text
    kept = f" ([{promises[1]}](design.md#what-hub-promises))" if promises else ""
    return f"| `{name}` | {meaning[:1].upper() + meaning[1:]}{kept} |"


def _signature(function: object) -> str:
    method = getattr(function, "__func__", function)
    names = [name for name in inspect.signature(method).parameters if name not in ("self", "cls")]
    return f"({', '.join(names)})"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", r"\|") if text else ""


def _summary(of: object) -> str:
    """Return a docstring up to its first section, in one line."""
    return _one_line(re.split(r"\n(?:Args|Raises|Attributes):\n", inspect.getdoc(of) or "")[0])


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(page() != PAGE.read_text())
    PAGE.write_text(page())
