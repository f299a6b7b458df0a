"""`hub convert-checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hub.cli.command import complete_optimizer
from hub.errors import HubError


def convert(
    name: Annotated[
        str,
        typer.Argument(
            help="The optimizer that wrote it, as in `hub list`.",
            autocompletion=complete_optimizer,
        ),
    ],
    source: Annotated[Path, typer.Argument(help="Its pickled state dict, such as optimizer.pt.")],
    target: Annotated[Path, typer.Argument(help="Where to write.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code that the file names. Read it first.")
    ] = False,
    names: Annotated[
        Path | None,
        typer.Option(
            help="JSON: a list of parameter names for each group of the checkpoint. Not needed "
            "where the folder has the configuration and arguments of a Transformers run."
        ),
    ] = None,
) -> None:
    """Turn an old pickled checkpoint into tensors and plain data, which hub loads and trusts."""
    from hub.saving.convert import convert_checkpoint

    _check_target(target)
    convert_checkpoint(
        name, source, target, trust=trust, names=_read_names(names) if names else None
    )
    typer.echo(f"wrote {target}")


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise HubError(
            "the folder to write to does not exist",
            where=str(target.parent),
            fix="make it first, or name another one",
        )


def _read_names(path: Path) -> list[list[str]]:
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(list[list[str]]).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON, or of another form"
        raise HubError(
            f"parameter names cannot be read from {path}: {reason}",
            where="names",
            fix='write one list for each group, such as [["layer.weight"], ["layer.bias"]]',
        ) from error
