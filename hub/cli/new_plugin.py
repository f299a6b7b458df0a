"""`hub new-plugin MODULE:CLASS`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.errors import HubError
from hub.names.registry import default_registry
from hub.terminal import Terminal

if TYPE_CHECKING:
    from hub.cli.scaffold.fields import Fields
    from hub.cli.scaffold.upstream import Upstream

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def new_plugin(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:CLASS", help="An optimizer class, such as prodigyopt:Prodigy."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Its name; by default the class's, in lower case.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder; by default hub-NAME in this one.")
    ] = None,
) -> None:
    """Write a plugin for an optimizer class that is installed.

    The class may also be a function that takes parameter groups, and arguments by keyword.
    """
    from hub.cli.scaffold.fields import fields_of
    from hub.cli.scaffold.files import Plugin
    from hub.cli.scaffold.upstream import find

    upstream = find(target)
    plugin = Plugin(
        _checked_name(name or upstream.name.lower()), upstream, fields_of(upstream.target, target)
    )
    _try(upstream, plugin.fields)
    folder = out or Path(plugin.distribution)
    _write(plugin.files(), folder)
    console = Terminal()
    console.print(f"wrote {folder}", soft_wrap=True)
    for argument, reason in plugin.fields.left_out.items():
        console.print(f"left out '{argument}': {reason}")
    console.print(f"next: pip install -e {folder}, and hub check {plugin.name}", soft_wrap=True)


def _checked_name(name: str) -> str:
    from hub.cli.scaffold.files import distribution_of
    from hub.names.layerwise_spec import LAYERWISE_SUFFIX

    if not NAME.fullmatch(name) or name.endswith(LAYERWISE_SUFFIX):
        raise HubError(
            f"'{name}' cannot be the name of an optimizer",
            where="name",
            fix="write lower-case letters, digits and single underscores, such as "
            f"name='my_adam', and no ending {LAYERWISE_SUFFIX}",
        )
    owners = {source.distribution for source in default_registry().owners("optimizer", name)}
    if owners - {distribution_of(name)}:
        raise HubError(
            f"{' and '.join(sorted(owners))} has '{name}' already",
            where="name",
            fix=f"choose another, such as name='my_{name}'",
        )
    return name


def _try(upstream: Upstream, fields: Fields) -> None:
    """Build it as `hub doctor` will, if that takes no arguments.

    Raises:
        HubError: It is another class, or cannot be built for a model with weights and biases.
    """
    from torch import nn
    from torch.optim import Optimizer

    from hub.building.build import build
    from hub.quiet import no_warnings

    target = upstream.target
    if isinstance(target, type) and (target is Optimizer or not issubclass(target, Optimizer)):
        raise HubError(
            f"{upstream.path} is not the class of an optimizer",
            where=upstream.path,
            fix="name an optimizer class, or a function that returns an optimizer",
        )
    if fields.required:
        return
    model = nn.Sequential(nn.Linear(256, 256, device="cpu"), nn.Linear(256, 256, device="cpu"))
    try:
        with no_warnings():
            build((target, {}), model)
    except HubError as error:
        raise HubError(
            f"{upstream.path} does not train every model: {error.what}",
            where=upstream.path,
            fix="write a function that takes the parameter groups of a model with weights and "
            "biases, and returns one torch.optim.Optimizer over them; name that one",
        ) from error


def _write(files: dict[str, str], folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HubError(
            f"{folder} exists", where="out", fix="name a folder that is new or empty, with out=DIR"
        )
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise HubError(
            f"{folder} cannot be written: {error.strerror}",
            where="out",
            fix="name a folder that can be written to",
        ) from error
