"""Compare a step of hub with upstream's class by hand, on many small and a few large tensors.

Both step in one process, in turns; the ratio is that of the medians. Every installed name has a row
but those that project gradients, see `low_rank.py`, and that step in the backward pass, see
`backward.py`.

    python benchmarks/many_tensors.py [NAME...]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import nn

import hub
from hub.backend import load_object

MANY = [(8, 512)] * 512
MEDIUM = [(128, 512)] * 32
"""Tensors of more elements than hub stacks on a CPU."""
LARGE = [(2048, 2048)] * 5 + [(2048, 1984)]
TURNS = {len(MANY): 15, len(MEDIUM): 15, len(LARGE): 5}
ROUNDS = 8


@dataclass(frozen=True)
class Case:
    """A name of hub, and what its arguments or those of the class by hand are beside."""

    name: str
    cls: str = ""
    """As "module:class"; by default the one that hub's class is derived from."""
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    at_most: float = 1.03
    """The ratio that hub's step may take on many small tensors."""


CASES = (
    Case("stable_adamw", theirs={"triton": False}, at_most=0.6),
    Case("grokadamw", at_most=0.4),
    Case("adamw_torch"),
    Case("adamw_torch", ours={"compile": True}),
    Case("adafactor", cls="transformers:Adafactor"),
)
"""Other names have nothing but a name."""


class Weights(nn.Module):
    """Linear layers with weights of these shapes, which have gradients."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(n, m, bias=False) for m, n in shapes)
        for weight in self.parameters():
            weight.grad = torch.randn_like(weight) / 100


def medians(steps: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Return the median seconds of each step; the steps take turns."""
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()
    for turn in range(turns):
        for which in sorted(range(len(steps)), reverse=bool(turn % 2)):
            times[which].append(seconds(steps[which]))
    return [statistics.median(each) for each in times]


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def by_hand(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    """Build upstream's class with those arguments of hub's optimizer that it takes."""
    hub_s = built(case, nn.Linear(4, 4, bias=False))
    own = (kind for kind in type(hub_s).__mro__ if not kind.__module__.startswith(("hub.", "hub_")))
    cls: Any = load_object(case.cls) if case.cls else next(own)
    given = hub_s.hub_plan.values
    taken = {key: given[key] for key in given.keys() & signature(cls).parameters}
    optimizer = cls(model.parameters(), **taken | case.theirs)
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


def ratio(case: Case, shapes: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return hub's time over that of the class by hand, and hub's in milliseconds.

    Both step the same weights. Which one is built first alternates, as the place of the state in
    memory accounts for several percent.
    """
    rounds = [one_round(case, shapes, hub_first=bool(i % 2)) for i in range(ROUNDS)]
    return statistics.median(own / hand for own, hand in rounds), min(rounds)[0] * 1e3


def one_round(case: Case, shapes: Sequence[tuple[int, int]], *, hub_first: bool) -> list[float]:
    model = Weights(shapes)
    builds = [lambda: built(case, model), lambda: by_hand(case, model)]
    order = (0, 1) if hub_first else (1, 0)
    steps = {which: builds[which]().step for which in order}
    times = dict(zip(order, medians([steps[i] for i in order], TURNS[len(shapes)]), strict=True))
    return [times[0], times[1]]


def built(case: Case, model: nn.Module) -> Any:
    return hub.build(case.name, model, lr=1e-3, **case.ours)


def every_case(names: Sequence[str]) -> Iterator[Case]:
    special = {case.name for case in CASES}
    elsewhere = {hub.Trait.LOW_RANK, hub.Trait.STEPS_IN_BACKWARD}
    for name in names or dict.fromkeys(hub.describe(name).name for name in hub.list_optimizers()):
        if name in special:
            yield from (case for case in CASES if case.name == name)
        elif names or not elsewhere & hub.describe(name).traits:
            yield Case(name)


def main() -> None:
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    print(f"{'':20} {'512 of 8x512':>24} {'32 of 128x512':>24} {'25M in 6 tensors':>24}")
    for case in every_case(sys.argv[1:]):
        name = " ".join([case.name, *case.ours])
        try:
            cells = [ratio(case, shapes) for shapes in (MANY, MEDIUM, LARGE)]
        except RuntimeError as error:  # bitsandbytes' paged AdEMAMix on a CPU, which hub mends
            print(f"{name:20} not by hand: {str(error).splitlines()[0]}", flush=True)
            continue
        row = "".join(f"{part:8.2f} ({ms:9.2f} ms)" for part, ms in cells)
        print(f"{name:20} {row}  (at most {case.at_most}, 1.03, 1.03)", flush=True)


if __name__ == "__main__":
    main()
