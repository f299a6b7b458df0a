"""Compare a step of bf16 weights with `rounding` to a step of fp32 weights without.

All are built by hub, have fp32 state, and step in one process, in turns; the ratio is that of the
medians of a round. Each round builds anew: where the memory is accounts for a lot.

    python benchmarks/rounding.py [NAME...]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from typing import Any

import torch
from torch import nn

import hub

SHAPES = {"25M in 6": [(2048, 2048)] * 6, "2M in 512": [(8, 512)] * 512}
NAMES = ("adamw_torch", "adamw_torch_fused", "sgd", "schedule_free_adamw", "adafactor")
KINDS = ("split", "stochastic")
AT_MOST = 1.6
"""For "split" with adamw_torch and large weights."""
TURNS, ROUNDS = 6, 5


def built(name: str, shapes: list[tuple[int, int]], dtype: torch.dtype, **arguments: Any) -> Any:
    torch.manual_seed(0)
    weights = [nn.Parameter((torch.randn(shape) / 50).to(dtype)) for shape in shapes]
    optimizer = hub.build(name, nn.ParameterList(weights), lr=1e-3, **arguments)
    for weight in weights:
        weight.grad = torch.randn_like(weight) / 100
    return optimizer


def one_round(name: str, shapes: list[tuple[int, int]]) -> list[float]:
    """Return the median seconds of a plain step, and of one with each kind of rounding."""
    optimizers = [built(name, shapes, torch.float32)]
    optimizers += [built(name, shapes, torch.bfloat16, rounding=kind) for kind in KINDS]
    times: list[list[float]] = [[] for _ in optimizers]
    for turn in range(TURNS):
        for optimizer, own in zip(optimizers, times, strict=True):
            start = time.perf_counter()
            optimizer.step()
            if turn:  # the first makes state
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def main() -> None:
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    print(f"{'':20} {'':10} {'fp32':>8}" + "".join(f"{kind:>22}" for kind in KINDS))
    for name in sys.argv[1:] or NAMES:
        for what, shapes in SHAPES.items():
            rounds = [one_round(name, shapes) for _ in range(ROUNDS)]
            plain = statistics.median(plain for plain, *_ in rounds)
            row = f"{name:20} {what:10} {plain * 1e3:5.0f} ms"
            for kind in range(1, len(KINDS) + 1):
                ratios = [one[kind] / one[0] for one in rounds]
                row += f"{statistics.median(ratios):8.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            print(row, flush=True)
    print(f"at most: {AT_MOST} for 'split', adamw_torch, {next(iter(SHAPES))}")


if __name__ == "__main__":
    main()
