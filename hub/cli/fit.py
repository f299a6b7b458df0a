"""`hub fit --memory 24GiB`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hub.cli.command import complete_optimizer
from hub.cli.estimate import mesh_shape
from hub.errors import HubError
from hub.terminal import Terminal, literal
from hub.text import listed, shown, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.planning.fit import Candidate, Candidates

UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([KMG]i?B)")


def fit(
    memory: Annotated[str, typer.Option(help="What the device has: 24GiB, 80GB, 512MiB.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Optimizers; by default all.", autocompletion=complete_optimizer),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder with a Transformers configuration; by default a small Llama."),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(help="Ranks that FSDP2 shards the model over: 8, or 2x4 with 2 replicas."),
    ] = None,
    target_modules: Annotated[
        list[str] | None, typer.Option(help="For low-rank optimizers; by default all-linear.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, bf16-mixed, …")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Your learning rate; by default that of each optimizer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print bytes as JSON.")] = False,
) -> None:
    """Show which optimizers, in which form, leave room to train a model in a given memory.

    What takes the least comes first. Forms that round most updates to zero are marked, and come
    after all others. The exit status is 1 if nothing fits.
    """
    import hub
    from hub.experiments.model import dtype_of, skeleton
    from hub.planning.fit import candidates

    most = memory_bytes(memory)
    shape = None if mesh is None else mesh_shape(mesh)
    counted = candidates(
        names or hub.list_optimizers(),
        skeleton(model, dtype_of(precision)),
        target_modules=target_modules,
        precision=precision,
        mesh=shape,
        lr=lr,
    )
    fitting = [each for each in counted.found if each.left(most) > 0]
    if as_json:
        typer.echo(json.dumps(_data(counted, most), indent=2))
    else:
        _print(counted, fitting, most, lr)
    if not fitting:
        raise typer.Exit(1)


def memory_bytes(text: str) -> int:
    """Read "24GiB", "80GB" or "512MiB".

    Raises:
        HubError: It is something else, or nothing.
    """
    found = MEMORY.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise HubError(
            f"{shown(text)} is not an amount of memory",
            where="--memory",
            fix="a number with its unit: 24GiB, 80GB, 512MiB",
        )
    return int(float(found[1]) * UNITS[found[2]])


def _data(counted: Candidates, most: int) -> dict[str, object]:
    rows = [
        {
            "name": each.name,
            "form": each.form.label,
            "arguments": dict(each.form.arguments),
            "layerwise": each.form.is_layerwise,
            **asdict(each.estimate),
            "total": each.estimate.total,
            "left": each.left(most),
            "stalls": each.stalls,
        }
        for each in counted.found
    ]
    errors = {name: str(error) for name, error in counted.refused.items()}
    return {
        "memory": most,
        "stalls_below": counted.stalls_below,
        "candidates": rows,
        "refused": errors,
    }


def _print(counted: Candidates, fitting: list[Candidate], most: int, lr: float | None) -> None:
    console = Terminal()
    if fitting:
        weights = size_text(fitting[0].estimate.parameters)
        console.print(f"weights take {weights} of {size_text(most)}; in each form, beside them:")
        console.print(_table(fitting, most))
        console.print(
            "layerwise: the name with _layerwise; split and stochastic: rounding=…; "
            "offload: offload=cpu; other: copies that a step makes; left: for activations"
        )
        for line in _about_stalls(counted, fitting, lr):
            console.print(line)
    too_large = [each for each in counted.found if each not in fitting]
    if too_large:
        least = min(too_large, key=lambda each: each.estimate.total)
        form = f" ({least.form.label})" if least.form.label else ""
        console.print(
            f"{len(too_large)} do not fit; the smallest, {least.name}{form}, takes "
            f"{size_text(-least.left(most))} more than there is"
        )
    reasons: dict[str, list[str]] = {}
    for name, error in counted.refused.items():
        reasons.setdefault(error.what.replace(name, "it"), []).append(name)
    for reason, names in reasons.items():
        console.print(f"not counted: {listed(names, len(names))}: {reason}")


def _about_stalls(counted: Candidates, fitting: list[Candidate], lr: float | None) -> Iterator[str]:
    """Say what "stalls" means; if no form is marked for want of a learning rate, how to mark it."""
    below = f"{counted.stalls_below:.2g}" if counted.stalls_below else ""
    if any(each.stalls for each in fitting):
        rate = "its default learning rate" if lr is None else f"lr={lr:g}"
        yield (
            f"stalls: at {rate} most updates round to zero; pass rounding=, or raise lr "
            f"above {below}"
        )
    elif below and lr is None and any("rounding" not in each.form.arguments for each in fitting):
        yield (
            f"below lr={below}, most forms without split or stochastic stall: their updates round "
            "to zero; --lr marks them"
        )


def _short(each: Candidate) -> str:
    """Return a form in as few words as a table has room for."""
    given = each.form.arguments.items()
    own = [key if key == "offload" else str(value) for key, value in given]
    words = ["layerwise"] * each.form.is_layerwise + own + ["stalls"] * each.stalls
    return ", ".join(words)


def _table(fitting: list[Candidate], most: int) -> Table:
    """Return one row for all names that take the same in the same form."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for each in fitting:
        size = each.estimate
        others = size.total - size.parameters - size.gradients - size.state
        sizes = (size.gradients, size.state, others, size.host, each.left(most))
        rows.setdefault((_short(each), *map(size_text, sizes)), []).append(each.name)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    for heading in ("optimizer", "form"):
        table.add_column(heading, overflow="fold")
    for heading in ("gradients", "state", "other", "on host", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figures, names in rows.items():
        table.add_row(literal(listed(names, 2)), *figures)
    return table
