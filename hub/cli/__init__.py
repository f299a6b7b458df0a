"""The command `hub`: look names up, see plans, compare optimizers, check an installation."""

from __future__ import annotations

import typer

from hub.cli import (
    bench,
    check,
    compare,
    compare_merge,
    convert,
    doctor,
    estimate,
    fit,
    listing,
    lr,
    new_plugin,
    plan,
    schema,
    search_space,
    show,
)
from hub.cli.command import Command

app = typer.Typer(
    help="Name an optimizer, get a torch.optim.Optimizer that behaves.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list", cls=Command)(listing.list_names)
app.command("show", cls=Command)(show.show)
app.command("plan", cls=Command)(plan.plan)
app.command("estimate", cls=Command)(estimate.estimate)
app.command("fit", cls=Command)(fit.fit)
app.command("lr", cls=Command)(lr.lr)
app.command("compare", cls=compare_merge.CompareOrMerge)(compare.compare)
app.command("bench", cls=Command)(bench.bench)
app.command("check", cls=Command)(check.check)
app.command("convert-checkpoint", cls=Command)(convert.convert)
app.command("new-plugin", cls=Command)(new_plugin.new_plugin)
app.command("schema", cls=Command)(schema.schema)
app.command("search-space", cls=Command)(search_space.search_space)
app.command("doctor", cls=Command)(doctor.doctor)


def main() -> None:
    """Run the command line."""
    app()
