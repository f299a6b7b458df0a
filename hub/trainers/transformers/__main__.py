"""`python -m hub.trainers.transformers -- COMMAND`: a trainer's command line with hub's names."""

from __future__ import annotations

import argparse
import os
import sys

from hub.trainers.transformers.startup import FOLDER, OVERRIDE


def main(words: list[str]) -> None:
    """Replace this process by the command.

    It keeps the process id, so signals reach it, and its exit status is that of the command. All
    that it inherits is a folder on PYTHONPATH, and so do the processes that it starts.
    """
    options, command = parsed(words)
    try:
        os.execvpe(command[0], command, environment(override=options.override))  # noqa: S606
    except OSError as error:  # as shells exit
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def parsed(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the command after the first `--`."""
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m hub.trainers.transformers",
        usage="%(prog)s [--override] -- COMMAND ...",
        description="Run a command that trains with Transformers. In its processes, optim= and "
        "--optim accept the names of `hub list`.",
    )
    parser.add_argument(
        "--override", action="store_true", help="also build Transformers' names with hub"
    )
    options = parser.parse_args(words[:at])
    if not words[at + 1 :]:
        parser.error("there is no command; write it after --, as in: -- trl sft --optim lomo")
    return options, words[at + 1 :]


def environment(*, override: bool) -> dict[str, str]:
    """Return the environment of the command."""
    path = os.environ.get("PYTHONPATH")
    paths = path.split(os.pathsep) if path else []
    paths = [FOLDER, *(entry for entry in paths if entry != FOLDER)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    variables.pop(OVERRIDE, None)
    return {**variables, **({OVERRIDE: "1"} if override else {})}


if __name__ == "__main__":
    main(sys.argv[1:])
