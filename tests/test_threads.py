"""Building, planning and estimating in several threads at once."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("first_builds.py")


@pytest.mark.parametrize("seed", range(4))
def test_first_builds_of_eight_threads_disturb_nobody(seed):
    """`for seed in $(seq 50); do python tests/first_builds.py $seed; done` tries more of them."""
    done = subprocess.run(
        [sys.executable, PROGRAM, str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stderr.removeprefix("[transformers] ") == "this is heard\n"
    assert (done.returncode, done.stdout) == (0, "")
