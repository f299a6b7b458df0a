"""Write in `docs/trainers.md` which optimizers work in which trainer, from a run of its tests.

`python docs/generate_trainers.py` runs them and writes; with `--check` it fails where the page is
not what the run says.
"""

import sys
from collections import defaultdict
from typing import Any

from generating import DOCS, ROOT, between_marks, code, finish, step_uncompiled

if __name__ == "__main__":
    step_uncompiled()

import pytest

TESTS = ROOT / "tests" / "trainers"
PAGE = DOCS / "trainers.md"
SUFFIX = "_layerwise"
TRAINERS = {
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
Results = dict[tuple[str, str], bool]
"""By name and trainer."""


class Recorder:
    """Notes, as a plugin of pytest, which names passed every test of a trainer."""

    def __init__(self) -> None:
        self.results: Results = defaultdict(lambda: True)
        self._cells: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Find the name and trainer of each test."""
        for item in items:
            test = f"{item.path.name}::{item.originalname}"
            trainer = next(trainer for trainer, tests in TRAINERS.items() if test in tests)
            kind = item.callspec.params.get("kind", "sft")
            if kind == "sft":
                self._cells[item.nodeid] = item.callspec.params["name"], trainer

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note how a phase of a test ended."""
        cell = self._cells.get(report.nodeid)
        if cell is not None:
            self.results[cell] &= report.passed


def measure() -> Results:
    """Run the tests of all trainers."""
    recorder = Recorder()
    tests = [str(TESTS / test) for tests in TRAINERS.values() for test in tests]
    pytest.main(["-q", "--no-header", f"--rootdir={ROOT}", *tests], plugins=[recorder])
    return recorder.results


def statement(results: Results) -> str:
    """Return which names work where, and the exceptions."""
    names = list(dict.fromkeys(name for name, _ in results))
    eager = [name for name in names if not name.endswith(SUFFIX)]
    layerwise = [name for name in names if name.endswith(SUFFIX)]
    text = f"""\
All {len(eager)} names, and the layerwise forms {code(layerwise)},
work in {_listed(list(TRAINERS))}, as these come.
The final weights, the learning rate of each step and an evaluation in the middle equal those of a
loop by hand to the last bit, in fp32 on a CPU. So do the weights of a training that continues from
a checkpoint of its middle. TRL's final weights equal those that the same trainer gets from a
finished optimizer. Accumulation, clipping and mixed precision are tested with one name of each
kind.
"""
    return text + "".join(f"{line}\n" for line in _exceptions(results, names))


def _exceptions(results: Results, names: list[str]) -> list[str]:
    found = [
        f"- `{name}` is {'broken' if (name, trainer) in results else 'not tested'} in {trainer}."
        for name in names
        for trainer in TRAINERS
        if not results.get((name, trainer), False)
    ]
    return ["\nExceptions:\n", *found] if found else []


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def main() -> int:
    """Write, or check; return the exit status."""
    results = measure()
    current = finish({PAGE: between_marks(PAGE.read_text(), statement(results))})
    return int(not current or not results or not all(results.values()))


if __name__ == "__main__":
    sys.exit(main())
