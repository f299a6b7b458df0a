"""docs/behaves.md says what was measured, and what was measured is still so."""

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import metadata

import pytest
from docs.conftest import DOCS, blocks

PAGE = (DOCS / "behaves.md").read_text()
TABLE = json.loads((DOCS / "behaves.json").read_text())
AGAIN = ["torch.optim:SGD", "torch.optim:NAdam", "pytorch_optimizer:Lion"]
"""One that passes, one that fails in bf16, and one that fails a single check."""


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))


def test_the_page_has_the_measured_rows():
    command = [sys.executable, DOCS / "generate_behaves.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_the_plugin_offers_what_was_measured():
    command = [
        sys.executable,
        DOCS.parent / "contrib/hub-pytorch-optimizer/generate.py",
        "--check",
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("module", ["pytorch_optimizer", "torch.optim"])
def test_every_class_of_a_package_is_there(module):
    from behaves_classes import PACKAGES, classes

    measured = {path.partition(":")[2] for path in TABLE if path.startswith(f"{module}:")}
    versions = {row["version"] for path, row in TABLE.items() if path.startswith(f"{module}:")}
    assert len(versions) == 1
    if versions == {metadata.version(PACKAGES[module])}:
        assert measured == set(classes(module))


@pytest.mark.parametrize("path", AGAIN)
def test_a_row_says_what_a_new_run_says(path):
    from behaves_discover import failure

    row = TABLE[path]
    assert any(row["outcomes"].values()) == (path != AGAIN[0])
    for key, stored in row["outcomes"].items():
        check, _, precision = key.rpartition("-")
        assert kind(failure(row, check, precision)) == kind(stored), key


def kind(said):
    """Return what a check says without numbers and names, which depend on how a CPU rounds."""
    return re.sub(r"\[.*\]|[\d.]+", "…", said)


def test_every_check_of_the_kit_is_measured():
    """If not, `python docs/measure_behaves.py` measures what is new in the kit."""
    from behaves_discover import lacking

    assert not {path: found for path, row in TABLE.items() if (found := lacking(row))}


def test_a_row_gets_the_checks_that_it_lacks():
    """The class itself fails `copies`, and the plugin's passes it."""
    from behaves_discover import catch_up, lacking

    row = TABLE["pytorch_optimizer:Lion"]
    missing = {
        "outcomes": ["copies-fp32"],
        "whole_kit": ["copies-fp32", "offloads_layerwise-bf16"],
    }
    known = {
        part: {key: found for key, found in row[part].items() if key not in keys}
        for part, keys in missing.items()
    }
    assert lacking(row | known) == missing
    found = catch_up(row | known)
    assert found == row
    assert found["outcomes"]["copies-fp32"]
    assert not found["whole_kit"]["copies-fp32"]


def test_a_row_that_claims_too_much_is_noticed():
    from behaves_discover import independence

    row = TABLE["pytorch_optimizer:AdaGC"]
    assert "depends on other parameters" in independence(row)["why_not_layerwise"]


@pytest.mark.parametrize("program", blocks(PAGE))
def test_the_failures_by_hand_run(program):
    """Each line that prints says what in a comment."""
    output = io.StringIO()
    with redirect_stdout(output):
        exec(program, {})
    expected = re.findall(r"^\s*print\(.*\)  # (.*)$", program, re.MULTILINE)
    assert output.getvalue().splitlines() == expected
