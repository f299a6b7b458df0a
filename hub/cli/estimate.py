"""`hub estimate NAME`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from hub.cli.command import complete_optimizer
from hub.errors import OptimArgsError
from hub.terminal import Terminal, literal
from hub.text import shown, size_text

if TYPE_CHECKING:
    from hub.planning.estimate import Estimate


def estimate(
    names: Annotated[
        list[str],
        typer.Argument(help="Optimizers, as in `hub list`.", autocompletion=complete_optimizer),
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Folder with a Transformers configuration; by default a small Llama."),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(help="Ranks that FSDP2 shards the model over: 8, or 2x4 with 2 replicas."),
    ] = None,
    optim_args: Annotated[str | None, typer.Option(help="key=value, key=value")] = None,
    target_modules: Annotated[
        list[str] | None, typer.Option(help="For low-rank optimizers; may be repeated.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, bf16-mixed, …")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print bytes as JSON.")] = False,
) -> None:
    """Count the memory that training takes, before anything is allocated.

    Of one process, or with --mesh of the busiest rank. Activations come on top.
    """
    from hub.experiments.model import dtype_of, skeleton
    from hub.planning.estimate import estimate as count

    skeletal = skeleton(model, dtype_of(precision))
    found = {
        name: count(
            name,
            skeletal,
            mesh=None if mesh is None else mesh_shape(mesh),
            optim_args=optim_args,
            target_modules=target_modules[0]
            if target_modules and len(target_modules) == 1
            else target_modules,
            precision=precision,
        )
        for name in names
    }
    if as_json:
        data = {name: {**asdict(size), "total": size.total} for name, size in found.items()}
        typer.echo(json.dumps(data, indent=2))
    else:
        Terminal().print(_table(found))


def mesh_shape(mesh: str) -> tuple[int, ...]:
    """Read "8" or "2x4".

    Raises:
        OptimArgsError: It is something else.
    """
    sizes = mesh.split("x")
    if len(sizes) > 2 or not all(re.fullmatch("[1-9][0-9]{0,8}", size) for size in sizes):  # noqa: PLR2004
        raise OptimArgsError(
            f"--mesh {shown(mesh)} is not a shape",
            where="--mesh",
            fix="--mesh 8 is FSDP2 on 8 ranks, --mesh 2x4 is 2 replicas on 4 ranks each (HSDP)",
        )
    return tuple(map(int, sizes))


def _table(found: dict[str, Estimate]) -> Table:
    kinds = list(asdict(next(iter(found.values()))))
    used = [key for key in kinds if any(getattr(size, key) for size in found.values())]
    columns = [*used, "total"]
    table = Table("optimizer", *(Column(key, justify="right") for key in columns), box=SIMPLE_HEAD)
    for name, size in found.items():
        table.add_row(literal(name), *(size_text(getattr(size, key)) for key in columns))
    return table
