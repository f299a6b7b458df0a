"""The command `hub`: look names up, see plans, compare optimizers, check an installation."""

from __future__ import annotations

import sys

import typer

from hub.cli import check, compare, convert, doctor, listing, lr, plan, show
from hub.errors import HubError
from hub.terminal import Terminal

app = typer.Typer(
    help="Name an optimizer, get a torch.optim.Optimizer that behaves.",
    no_args_is_help=True,
    add_completion=False,
)
app.command("list")(listing.list_names)
app.command("show")(show.show)
app.command("plan")(plan.plan)
app.command("lr")(lr.lr)
app.command("compare")(compare.compare)
app.command("check")(check.check)
app.command("convert-checkpoint")(convert.convert_checkpoint)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; an error of hub's own is a message and exit status 2."""
    try:
        app()
    except HubError as error:
        Terminal(stderr=True).print(str(error), style="red")
        sys.exit(2)
