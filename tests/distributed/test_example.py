"""examples/fsdp2.py trains, is killed, and continues on any number of processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "fsdp2.py"
NAME = "galore_adamw"
STEPS, EVERY, KILLED_AFTER = 8, 2, 4
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ENVIRONMENT = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def started(folder, processes):
    own = ["--optim", NAME, "--steps", str(STEPS), "--every", str(EVERY), "--checkpoints", folder]
    return subprocess.Popen(
        [*TORCHRUN, "--nproc-per-node", str(processes), SCRIPT, *own],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def losses(lines):
    """The held-out losses by step."""
    found = (re.fullmatch(r"step (\d+): held-out loss ([\d.]+)\n", line) for line in lines)
    return {int(match[1]): float(match[2]) for match in found if match}


def finished(run):
    with run:
        said = losses(run.stdout)
    assert run.returncode == 0
    return said


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return finished(started(tmp_path_factory.mktemp("whole"), processes=2))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The checkpoints of a run whose processes are killed in the middle."""
    folder = tmp_path_factory.mktemp("killed")
    run = started(folder, processes=2)
    with run:
        next(line for line in run.stdout if KILLED_AFTER in losses([line]))
        os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    assert not (folder / f"step-{STEPS}").exists()
    return folder


def test_it_learns(uninterrupted):
    assert list(uninterrupted) == list(range(EVERY, STEPS + 1, EVERY))
    assert uninterrupted[STEPS] < uninterrupted[EVERY] - 0.1


@pytest.mark.parametrize("processes", [2, 3])
def test_it_continues_after_a_kill(processes, uninterrupted, killed, tmp_path):
    shutil.copytree(killed, tmp_path / "checkpoints")
    resumed = finished(started(tmp_path / "checkpoints", processes))
    assert STEPS in resumed
    assert KILLED_AFTER not in resumed
    # Other numbers of processes add the gradients up in another order.
    tolerance = 0 if processes == 2 else 1e-4
    expected = {step: uninterrupted[step] for step in resumed}
    assert resumed == pytest.approx(expected, rel=tolerance, abs=0)
