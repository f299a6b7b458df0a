"""Building, planning and estimating in several threads at once."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("first_builds.py")


@pytest.mark.parametrize("seed", range(4))
def test_first_builds_of_eight_threads_disturb_nobody(seed):
    """More: `for seed in $(seq 50); do python tests/building/first_builds.py $seed; done`."""
    done = subprocess.run(
        [sys.executable, PROGRAM, str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stderr.removeprefix("[transformers] ") == "this is heard\n"
    assert (done.returncode, done.stdout) == (0, "")


OVERLAPPING = """
import sys, threading, warnings
import hub
from hub.quiet import no_warnings

def work():
    for _ in range(2000):
        try:
            with no_warnings(hub.HubWarning):
                with no_warnings(message="quiet"):
                    warnings.warn("quiet, please")
                warnings.warn("of hub", hub.HubWarning)
        except Warning as warning:
            heard.append(warning)

warnings.simplefilter("error")
filters, before, heard = warnings.filters, list(warnings.filters), []
sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not heard, heard[:3]
assert warnings.filters is filters and list(filters) == before
"""


def test_blocks_without_warnings_of_many_threads_do_not_hear_each_other():
    """Each has its own patterns, and filters stay while a thread needs them."""
    subprocess.run([sys.executable, "-c", OVERLAPPING], check=True, timeout=300)
