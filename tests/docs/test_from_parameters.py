"""docs/from-parameters.md runs from top to bottom, and its commands too."""

import shlex

import pytest
from typer.testing import CliRunner

from hub.cli import app
from tests.docs.conftest import DOCS, blocks

PAGE = (DOCS / "from-parameters.md").read_text()
COMMANDS = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]


def test_the_page_runs():
    namespace = {}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"from-parameters.md, block {number}", "exec"), namespace)


@pytest.mark.parametrize("line", COMMANDS)
def test_what_is_shown_runs(line):
    program, *arguments = shlex.split(line)
    assert program == "hub"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
