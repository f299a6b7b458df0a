"""`hub convert-checkpoint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def convert_checkpoint(
    name: Annotated[str, typer.Argument(help="The optimizer that wrote it, as in `hub list`.")],
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

    given = json.loads(names.read_text()) if names else None
    convert_checkpoint(name, source, target, trust=trust, names=given)
    typer.echo(f"wrote {target}")
