"""Write the matrix of `docs/trainers.md` from a run of the tests of trainers.

`python docs/generate_trainers.py` runs what the columns are made of and writes the table; with
`--check` it fails where the table is not what the run says.
"""

import os
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

# torchao compiles its steps: the same arithmetic, for minutes.
if __name__ == "__main__":
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "trainers"
PAGE = ROOT / "docs" / "trainers.md"
MARKS = "<!-- matrix -->\n", "<!-- end of matrix -->\n"
COLUMNS = {
    "Transformers' Trainer": (
        "test_transformers.py::test_weights_rates_and_evaluations",
        "test_resume.py::test_to_the_bit",
    ),
    "TRL's SFTTrainer": ("test_trl.py::test_as_with_a_finished_optimizer",),
    "Lightning": (
        "test_lightning.py::test_every_name",
        "test_lightning.py::test_resumes_to_the_last_bit",
    ),
    "Accelerate": (
        "test_accelerate.py::test_every_name",
        "test_accelerate.py::test_resumes_to_the_last_bit",
    ),
}
KEPT, BROKEN, NONE = "✓", "✗", "–"
LEGEND = f"""
{KEPT}: in the trainer as it is, the final weights, the learning rate of each step and an evaluation
in the middle equal those of a loop by hand to the last bit, in fp32 on the CPU; and so do the
weights of a training that goes on from a checkpoint of its middle. {NONE}: not tried. For TRL it is
the final weights, against the same trainer around a finished optimizer. Accumulation, clipping and
mixed precision are tried with one name of each kind. `docs/generate_trainers.py` writes this table
from a run of `tests/trainers`.
"""

Results = dict[tuple[str, str], bool]
"""By name and column."""


class Recorder:
    """Notes, as a plugin of pytest, which names passed every test of a column."""

    def __init__(self) -> None:
        self.results: Results = defaultdict(lambda: True)
        self._cells: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Find the cell of each test."""
        for item in items:
            test = f"{item.path.name}::{item.originalname}"
            column = next(column for column, tests in COLUMNS.items() if test in tests)
            kind = item.callspec.params.get("kind", "sft")
            if kind == "sft":
                self._cells[item.nodeid] = item.callspec.params["name"], column

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note how a phase of a test ended."""
        cell = self._cells.get(report.nodeid)
        if cell is not None:
            self.results[cell] &= report.passed


def measure() -> Results:
    """Run the tests of all columns."""
    recorder = Recorder()
    tests = [str(TESTS / test) for tests in COLUMNS.values() for test in tests]
    pytest.main(["-q", "--no-header", f"--rootdir={ROOT}", *tests], plugins=[recorder])
    return recorder.results


def table(results: Results) -> str:
    """Return the rows of all names, and what they mean."""

    def cell(name: str, column: str) -> str:
        found = results.get((name, column))
        return NONE if found is None else KEPT if found else BROKEN

    head = f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}"
    names = dict.fromkeys(name for name, _ in results)
    rows = [f"| `{name}` | {' | '.join(cell(name, c) for c in COLUMNS)} |" for name in names]
    return "\n".join([head, *rows]) + "\n" + LEGEND


def with_table(text: str, new: str) -> str:
    """Return the page's text with the table between its marks."""
    start, end = MARKS
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: start + new + end, text, flags=re.DOTALL)


def main() -> int:
    """Write, or check; return the exit status."""
    results = measure()
    old = PAGE.read_text()
    new = with_table(old, table(results))
    if "--check" not in sys.argv:
        PAGE.write_text(new)
    elif old != new:
        sys.stderr.write(f"{PAGE.name} is not what the run says\n")
        return 1
    return int(not results or not all(results.values()))


if __name__ == "__main__":
    sys.exit(main())
