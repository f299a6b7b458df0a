"""docs/performance.md has every name, and what its JSON says."""

import json
import re
import shlex
import subprocess
import sys

import hub
from hub.bench.result import Report
from hub.bench.table import MEANINGS
from tests.docs.conftest import DOCS, generator

SCRIPT = generator("generate_performance")
PAGE = (DOCS / "performance.md").read_text()
FIGURES = json.loads((DOCS / "performance.json").read_text())


def test_every_name_was_measured_in_every_setup():
    for device, reports in FIGURES.items():
        assert device in SCRIPT["KINDS"]
        for key in SCRIPT["SETUPS"]:
            report = Report.from_dict(reports[key])
            assert [row.label for row in report.rows] == hub.list_optimizers()
            assert all(row.error or row.ratio > 0 for row in report.rows)


def test_the_page_is_what_is_generated():
    command = [sys.executable, DOCS / "generate_performance.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_column_is_explained():
    assert re.findall(r"^\| (\S+) \| `", PAGE, re.MULTILINE) == list(MEANINGS)
    explained = set(re.findall(r"`(\w+)`", PAGE))
    row = FIGURES["cpu"]["large"]["rows"][0]
    said = {key for key in row if key.endswith(("_ms", "_bytes")) or key in {"ratio", "reached"}}
    assert said - explained == {"fused_ms", "state_bytes", "mean_ms", "slowest_ms"}


def test_the_commands_have_these_options():
    from typer.testing import CliRunner

    from hub.cli import app

    helped = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "200"}).output
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    options = {word for word in shlex.split(block, comments=True) if word.startswith("--")}
    assert options
    assert all(option in helped for option in options)
