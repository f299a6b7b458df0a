"""What docs/command-line.md says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hub.cli import app

PAGE = (Path(__file__).parents[2] / "docs/command-line.md").read_text()
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


def test_every_command_is_in_the_table():
    assert re.findall(r"^\| `hub ([a-z-]+)", PAGE, re.MULTILINE) == list(get_command(app).commands)


@pytest.mark.parametrize("line", LINES)
def test_what_is_shown_runs(line):
    program, *arguments = shlex.split(line)
    assert program == "hub"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


PROGRAM = "import sys; sys.argv[0] = 'hub'; from hub.cli import main; main()"
"""The installed script, wherever it is."""


def completions(line):
    """Return what Bash is given for a line, by the process that it starts."""
    variables = {"_HUB_COMPLETE": "complete_bash", "COMP_WORDS": line}
    variables["COMP_CWORD"] = str(len(line.split(" ")) - 1)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def test_names_are_completed_as_shown():
    line, *shown = re.search(r"\$ (.*)<TAB>\n(.*?)```", PAGE, re.DOTALL).groups()
    assert completions(line) == " ".join(shown).split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hub plan sche", "schedule_free_adamw schedule_free_radam schedule_free_sgd"),
        ("hub lr cosine_with", "cosine_with_min_lr cosine_with_restarts"),
        ("hub check adafa", "adafactor"),
        ("hub conv", "convert-checkpoint"),
        ("hub plan sgd --opt", "--optim-args"),
    ],
)
def test_commands_options_and_names_are_completed(line, expected):
    assert completions(line) == expected.split()


def test_completion_can_be_shown():
    helped = CliRunner().invoke(app, ["--help"]).output
    for option in re.findall(r"`hub (--\w+-completion)`", PAGE):
        assert option in helped
