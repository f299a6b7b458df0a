"""Write `docs/problems.json`: which of the twenty problems each name passes, and at which rate.

`python docs/measure_problems.py` takes a few minutes. With names on its command line it measures
these, and leaves the others as they are.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch
from generating import DOCS, step_uncompiled

import hub
from hub.compare import Contender, Run, Settings
from hub.compare.execution.events import Evaluated
from hub.compare.execution.training import train
from hub.compare.tasks import problems

TABLE = DOCS / "problems.json"
FACTORS = (10, 3, 30, 1, 0.3, 0.1)
"""Of the default learning rate; what passes most often comes first."""
LOW_RANK = {"rank": 8, "update_proj_gap": 20}
"""For matrices of 16×16, and trainings of 200 steps."""
PROCESSES = 2


def rates(name: str) -> list[float]:
    """Return the learning rates to try."""
    default = hub.describe(name).arguments.model_fields["lr"].default
    return [float(f"{factor * default:.2g}") for factor in FACTORS]


def passes(name: str, problem: str, rate: float) -> bool:
    """Train until the target is reached, at most as long as the problem says."""
    more = LOW_RANK if hub.Trait.LOW_RANK in hub.describe(name).traits else {}
    contender = Contender(name, {"lr": rate} | more)
    found = problems.find(problem)
    settings = Settings(contenders=(contender,), tasks=(problem,), target=found.target)
    run = Run(contender=contender.label, task=problem, seed=0, steps=found.steps)
    return any(
        isinstance(event, Evaluated) and event.step and event.loss <= found.target
        for event in train(settings, contender, run)
    )


def measure(name: str) -> dict[str, float | None]:
    """Return the first rate that passes each problem; None where all fail."""
    torch.set_num_threads(1)
    return {
        problem.removeprefix(problems.PREFIX): next(
            (rate for rate in rates(name) if passes(name, problem, rate)), None
        )
        for problem in problems.NAMES
    }


def write(measured: dict[str, dict[str, float | None]]) -> None:
    """Write what is measured so far."""
    TABLE.write_text(json.dumps(dict(sorted(measured.items())), indent=1) + "\n")


if __name__ == "__main__":
    step_uncompiled()  # in the processes that start now
    start = time.perf_counter()
    names = sys.argv[1:] or hub.list_optimizers()
    table = json.loads(TABLE.read_text()) if sys.argv[1:] else {}
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(measure, name): name for name in names}
        for done in as_completed(running):
            table[running[done]] = done.result()
            write(table)
    print(f"{len(names)} names, {time.perf_counter() - start:.0f} s")
