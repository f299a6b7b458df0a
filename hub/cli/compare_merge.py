"""`hub compare merge RESULTS RESULTS… --out DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from hub.cli.command import Command
from hub.terminal import Terminal


def merge(
    results: Annotated[
        list[Path], typer.Argument(help="Folders of studies, or their results.json.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the report of all of them.")],
) -> None:
    """Join the results of several machines, or of parts of a study, into one report."""
    from hub.compare import merging, report
    from hub.compare.results_file import load
    from hub.compare.writing import make_directory

    merged = merging.merge([load(path) for path in results], [str(path) for path in results])
    make_directory(out)
    console = Terminal()
    report.show(merged, console, str)
    report.write(merged, out)
    console.print(f"the report is {out / 'report.html'}", soft_wrap=True)


class CompareOrMerge(Command):
    """The command `hub compare`, and `hub compare merge` where that is the first word after it."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Read the arguments of the one command or the other."""
        if args[:1] != ["merge"]:
            return super().make_context(info_name, args, parent, **extra)
        app = typer.Typer(add_completion=False, context_settings=dict(self.context_settings))
        app.command(cls=Command)(merge)
        return get_command(app).make_context(f"{info_name} merge", args[1:], parent, **extra)
