"""Compare a step of hub with upstream's class by hand, on many small and a few large tensors.

Both step in one process, in turns; the ratio is that of the medians. Which package has each class
is in `CASES`; names whose package is not installed are left out.

    python benchmarks/many_tensors.py [NAME...]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import nn

import hub

MANY = [(8, 512)] * 512
MEDIUM = [(128, 512)] * 32
"""Tensors of more elements than hub stacks on a CPU."""
LARGE = [(2048, 2048)] * 5 + [(2048, 1984)]
TURNS = {len(MANY): 15, len(MEDIUM): 15, len(LARGE): 5}
ROUNDS = 8


@dataclass(frozen=True)
class Case:
    """A name of hub, and the same class by hand."""

    name: str
    cls: str
    """As "module:class"."""
    arguments: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    at_most: float = 1.03
    """The ratio that hub's step may take on many small tensors."""


CASES = (
    Case("stable_adamw", "optimi:StableAdamW", theirs={"triton": False}, at_most=0.6),
    Case("grokadamw", "grokadamw:GrokAdamW", at_most=0.4),
    Case("muon", "torch.optim:Muon"),
    Case("schedule_free_adamw", "schedulefree:AdamWScheduleFree"),
    Case("schedule_free_sgd", "schedulefree:SGDScheduleFree"),
    Case("adamw_torch", "torch.optim:AdamW"),
    Case("adamw_torch", "torch.optim:AdamW", ours={"compile": True}),
    Case("adamw_torch_fused", "torch.optim:AdamW", theirs={"fused": True}),
    Case("sgd", "torch.optim:SGD"),
    Case("adafactor", "transformers:Adafactor", theirs={"relative_step": False}),
    Case("adagrad", "torch.optim:Adagrad"),
    Case("rmsprop", "torch.optim:RMSprop"),
)


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
            start = time.perf_counter()
            steps[which]()
            times[which].append(time.perf_counter() - start)
    return [statistics.median(each) for each in times]


def by_hand(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    module, _, name = case.cls.partition(":")
    cls = getattr(import_module(module), name)
    optimizer = cls(model.parameters(), lr=1e-3, **case.arguments, **case.theirs)
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
    builds = [lambda: hub.build(case.name, model, lr=1e-3, **case.arguments, **case.ours)]
    builds.append(lambda: by_hand(case, model))
    order = (0, 1) if hub_first else (1, 0)
    steps = {which: builds[which]().step for which in order}
    times = dict(zip(order, medians([steps[i] for i in order], TURNS[len(shapes)]), strict=True))
    return [times[0], times[1]]


def chosen(names: Sequence[str]) -> Iterator[Case]:
    for case in CASES:
        try:
            import_module(case.cls.partition(":")[0])
        except ImportError:
            continue
        if not names or case.name in names:
            yield case


def main() -> None:
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    print(f"{'':20} {'512 of 8x512':>24} {'32 of 128x512':>24} {'25M in 6 tensors':>24}")
    for case in chosen(sys.argv[1:]):
        cells = [ratio(case, shapes) for shapes in (MANY, MEDIUM, LARGE)]
        row = "".join(f"{part:8.2f} ({ms:9.2f} ms)" for part, ms in cells)
        name = " ".join([case.name, *case.ours])
        print(f"{name:20} {row}  (at most {case.at_most}, 1.03, 1.03)", flush=True)


if __name__ == "__main__":
    main()
