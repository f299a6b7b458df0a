"""A fresh Python process that finds the tests' modules."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def run_fresh(code: str, *arguments: str, options: tuple[str, ...] = ()) -> None:
    """Run a program; `helpers` and the modules of `tests/trainers` can be imported in it."""
    found = [str(TESTS), str(TESTS / "trainers"), os.environ.get("PYTHONPATH", "")]
    subprocess.run(
        [sys.executable, *options, "-c", code, *arguments],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))},
    )
