"""A run that is killed with SIGKILL, at any moment, and started again ends as if nothing had been.

Checkpoints are written as the documentation advises: model, optimizer and schedule together, to a
temporary file that then takes the old one's place. The rest is up to the optimizer's state dict.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import hub

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the kill and the processes are those of POSIX"
)

STEPS = 40
LATEST = 25
"""Last step to be killed after; the others leave the kill time to strike."""
DELAY = 0.02
"""Seconds between a step and the kill, at most: a step with its checkpoint takes about as long."""


@dataclass(frozen=True)
class Run:
    """What `kill_worker.train` is called with, but for the folder."""

    name: str
    every: int = 1
    arguments: dict[str, object] = field(default_factory=dict)
    schedule: str = "cosine"
    steps: int = STEPS
    forget: list[str] = field(default_factory=list)


LOW_RANK = {"target_modules": "all-linear", "rank": 4, "update_proj_gap": 3}
RUNS = {
    "adamw_torch": Run("adamw_torch"),
    "galore_adamw": Run("galore_adamw", arguments=LOW_RANK),
    # Anneals by itself; the warm-up makes its learning rate change all the same.
    "schedule_free_adamw": Run("schedule_free_adamw", schedule="constant_with_warmup"),
}
BACKENDS = {"galore_adamw": "hub_galore.factory", "schedule_free_adamw": "hub_schedulefree.factory"}
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name not in hub.list_optimizers(), reason=f"no plugin that offers {name} is installed"
        ),
    )
    for name in RUNS
]


class Worker:
    """The process that forks a process for each run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def start(self, run: Run, folder: Path) -> None:
        """Start a run, or start it again: it goes on from what it finds in the folder."""
        print(json.dumps({**asdict(run), "folder": str(folder)}), file=self.process.stdin)
        self.process.stdin.flush()

    def heard(self) -> dict[str, int]:
        """Wait for the next line."""
        line = self.process.stdout.readline()
        assert line, f"the worker ended with {self.process.wait()}"
        return json.loads(line)

    def ended(self) -> int:
        """Wait for the run's exit code."""
        while "ended" not in (facts := self.heard()):
            pass
        return facts["ended"]

    def weights(self, run: Run, folder: Path) -> dict[str, torch.Tensor]:
        """Let a run finish; return its weights."""
        self.start(run, folder)
        assert self.ended() == 0
        return torch.load(folder / "weights.pt", weights_only=True)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    installed = set(hub.list_optimizers())
    backends = [module for name, module in BACKENDS.items() if name in installed]
    command = [sys.executable, Path(__file__).with_name("kill_worker.py"), *backends]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Worker(process)
        process.stdin.close()  # which ends it


@pytest.fixture(scope="module")
def uninterrupted(
    worker: Worker, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights of each run that is left alone, in a process of its own too."""
    installed = set(hub.list_optimizers())
    return {
        name: worker.weights(run, tmp_path_factory.mktemp(name))
        for name, run in RUNS.items()
        if name in installed
    }


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def kill(worker: Worker, run: Run, folder: Path, last: int, delay: float | None = None) -> None:
    """Start a run, and kill it after a step.

    Args:
        worker: Starts it.
        run: What to start.
        folder: Where it works.
        last: The step, counted from 1; 0 is when everything is built.
        delay: Seconds from there; None: as soon as it writes its next checkpoint.
    """
    worker.start(run, folder)
    while (facts := worker.heard())["done"] < last:
        pass
    if delay is None:
        deadline = time.monotonic() + 60
        while not (folder / "checkpoint.tmp").exists():
            assert time.monotonic() < deadline, "no further checkpoint is written"
    else:
        time.sleep(delay)
    os.kill(facts["pid"], signal.SIGKILL)
    assert worker.ended() == -signal.SIGKILL
    assert not (folder / "weights.pt").exists()


def trials() -> Iterator[object]:
    """Yield ten runs, each with a seed for the moment of its death."""
    for seed in range(10):
        name = NAMES[seed % len(NAMES)]
        yield pytest.param(*name.values, seed, marks=name.marks, id=f"{name.values[0]}-{seed}")


@pytest.mark.parametrize(("name", "seed"), list(trials()))
def test_a_killed_run_ends_the_same(
    name: str,
    seed: int,
    worker: Worker,
    uninterrupted: dict[str, dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    """Killed after any step, at any moment of the next or, each fourth time, while it saves."""
    rng = random.Random(seed)
    run = replace(RUNS[name], every=rng.choice([1, 4]))
    delay = rng.uniform(0, DELAY) if seed % 4 else None
    kill(worker, run, tmp_path, rng.randint(0, LATEST), delay)
    assert not differing(worker.weights(run, tmp_path), uninterrupted[name])


@pytest.mark.parametrize("forgotten", ["optimizer", "schedule"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_forgotten_shows(
    name: str,
    forgotten: str,
    worker: Worker,
    uninterrupted: dict[str, dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    """The weights above are equal because of what was restored, and not whatever is restored."""
    kill(worker, RUNS[name], tmp_path, LATEST, 0.0)
    forgetful = replace(RUNS[name], forget=[forgotten])
    assert differing(worker.weights(forgetful, tmp_path), uninterrupted[name])
