"""Twenty small problems with known answers: each is passed or failed."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

from hub.compare.result import digest

if TYPE_CHECKING:
    from hub.compare.tasks.problems.problem import Problem
    from hub.compare.tasks.task import Task

KINDS = {
    "quadratics": (
        "ill_conditioned",
        "valley",
        "scales",
        "noise",
        "heavy_tails",
        "outliers",
        "sign_flips",
        "loss_grows",
        "loss_fades",
        "moving_goal",
    ),
    "landscapes": ("saddle", "flat_saddle", "rosenbrock", "plateau", "depth", "factorization"),
    "regressions": ("low_rank", "sparse", "logistic", "xor"),
}
"""What is in each module of this folder; the modules import torch, and names are needed without."""
PREFIX = "problems/"
NAMES = tuple(PREFIX + name for names in KINDS.values() for name in names)


def find(name: str) -> Problem:
    """Return the problem with a name in `NAMES`."""
    own = name.removeprefix(PREFIX)
    kind = next(kind for kind, names in KINDS.items() if own in names)
    found: tuple[Problem, ...] = import_module(f"{__name__}.{kind}").PROBLEMS
    return next(one for one in found if one.name == own)


def make(name: str) -> Task:
    """Return the task with a name in `NAMES`."""
    problem = find(name)
    modules = (inspect.getmodule(type(problem)), inspect.getmodule(problem.model))
    return problem.task(digest([name, *(inspect.getsource(one) for one in modules if one)]))
