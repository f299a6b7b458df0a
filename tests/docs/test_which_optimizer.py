"""docs/which-optimizer.md has every name once, and the memory that they take now."""

import subprocess
import sys

import hub
from tests.docs.conftest import DOCS, blocks, generator

SCRIPT = generator("generate_which_optimizer")


def test_every_name_is_in_one_row():
    names = [name for family in SCRIPT["FAMILIES"] for row in family.rows for name in row]
    assert sorted(names) == hub.list_optimizers()


def test_memory_is_as_the_page_says():
    """In a separate process, where torchao steps uncompiled."""
    command = [sys.executable, DOCS / "generate_which_optimizer.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_its_example_runs(capsys):
    (example,) = blocks((DOCS / "which-optimizer.md").read_text())
    exec(compile(example, "which-optimizer.md", "exec"), {})
    assert "adafactor_layerwise: 0.12 GiB, 0.00 GiB" in capsys.readouterr().out
