"""Studies that show everything that a report has, and the strangest that it may be given."""

import math
from dataclasses import replace

import pytest
from helpers import studies

from hub.compare.result import Results, Status

NAMES = (
    "adamw_torch:lr=3e-3",
    "muon:lr=.02,weight_decay=0.1+adamw:lr=3e-3,betas=(0.9,0.95)",
    "sgd:lr=1000",
    "schedule_free_adamw_8bit_layerwise",
    "my_package.optimizers.experimental:AnOptimizerWithAVeryLongName:lr=0.1,momentum=0.9",
    "adafactor",
)
LABEL = "<i>&$\\frac$ [red]\"'{}\x1b[31m\u202e\u4f18"


def _trials(name: str, level: float) -> list:
    rates = [10 ** (-4 + trial / 2) for trial in range(6)]
    return [
        studies.outcome(
            name,
            100,
            level + 0.2 * abs(math.log10(rate) + 2.5),
            trial=trial,
            chosen={"lr": rate, "weight_decay": 0.01 * trial, "betas": (0.9, 0.95)},
            status=Status.DIVERGED if rate > 0.02 and level < 2.3 else Status.DONE,
        )
        for trial, rate in enumerate(rates)
    ]


def _blown_up(name: str, seed: int) -> studies.Outcome:
    """A training whose loss grows for a few steps before it is no number."""
    one = studies.outcome(name, seed, status=Status.DIVERGED, done=9)
    grown = (point._replace(loss=5.5 * 10**point.step) for point in one.curve)
    return replace(one, curve=tuple(grown))


@pytest.fixture(scope="session")
def everything() -> Results:
    """Six contenders, tuned, with targets on two tasks; two diverge and one fails."""
    made = []
    for task in ("llama", "digits"):
        for place, name in enumerate(NAMES):
            level = 2.0 + 0.1 * place
            made += _trials(name, level) if task == "llama" else []
            for seed in range(3):
                if name.startswith("sgd") and seed == 1:
                    made.append(replace(_blown_up(name, seed)))
                    made[-1] = replace(made[-1], run=replace(made[-1].run, task=task))
                    continue
                status = {
                    ("sgd:lr=1000", 2): Status.DIVERGED,
                    ("adafactor", 2): Status.FAILED,
                }.get((name, seed), Status.DONE)
                memory = {"state_bytes": (place + 1) * 7_000_000} if status is Status.DONE else {}
                made.append(
                    studies.outcome(
                        name,
                        seed,
                        40_000.0 if name.startswith("sgd") else level + 0.2 * seed + 0.01 * place,
                        task=task,
                        status=status,
                        every=4,
                        chosen={"lr": 0.0031622776601683794},
                        warnings=("deprecated: <b>now</b>",),
                        findings=("embeddings are trained by AdamW",),
                        **memory,
                    )
                )
    return studies.results(
        *made,
        tasks=(
            studies.task("llama", target=2.5),
            studies.task("digits", target=2.45, unit="nats", tokens=None),
        ),
        study={"contenders": [{"name": name, "optim_args": {"lr": 0.1}} for name in NAMES]},
    )


@pytest.fixture(scope="session")
def odd() -> Results:
    """One contender with a label of everything that has a meaning somewhere, and no seed done."""
    return studies.results(
        studies.outcome(LABEL, status=Status.FAILED),
        studies.outcome("sgd", status=Status.NOT_STARTED),
        studies.outcome("b", status=Status.DIVERGED, loss=1e300),
        studies.outcome("i", status=Status.INTERRUPTED, arguments={"threshold": math.inf}),
    )
