"""Owners, bytes and memory for large Llamas on many GPUs: `python docs/paper_plan.py` prints them.

From the functions that plans and steps use, so that the figures are those of a real run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

import hub
from hub.running.sharded.layout import Layout, SplitParameter, lay_out
from hub.running.sharded.owners import assign_owners, update_cost
from hub.spec import Sharding
from hub.text import size_text

RANKS = (8, 64, 512)
BF16 = 2  # bytes


@dataclass(frozen=True)
class Llama:
    """The sizes of a Llama."""

    name: str
    hidden: int
    mlp: int
    layers: int
    keys: int
    """Rows of the key and value projections."""
    vocabulary: int

    def linears(self) -> list[tuple[int, int]]:
        """Return the shapes of the linear layers, without the head."""
        attention = [(self.hidden, self.hidden)] * 2 + [(self.keys, self.hidden)] * 2
        mlp = [(self.mlp, self.hidden)] * 2 + [(self.hidden, self.mlp)]
        return (attention + mlp) * self.layers

    def others(self) -> list[tuple[int, ...]]:
        """Return the shapes of embedding, head and norms."""
        large = [(self.vocabulary, self.hidden)] * 2
        return [*large, *[(self.hidden,)] * (2 * self.layers + 1)]

    def model(self) -> nn.Module:
        """Return a model of these shapes on the meta device."""
        with torch.device("meta"):
            linears = nn.ModuleList(nn.Linear(n, m, bias=False) for m, n in self.linears())
            norms = nn.ModuleList(nn.RMSNorm(self.hidden) for _ in range(2 * self.layers + 1))
            embed = nn.Embedding(self.vocabulary, self.hidden)
            head = nn.Linear(self.hidden, self.vocabulary, bias=False)
            parts = {"embed": embed, "layers": linears, "norms": norms, "head": head}
            return nn.ModuleDict(parts).to(torch.bfloat16)


MODELS = (
    Llama("7B", 4096, 11008, 32, 4096, 32000),
    Llama("70B", 8192, 28672, 80, 1024, 32000),
)


@dataclass(frozen=True)
class Balance:
    """How even the work of some owners is."""

    critical: float
    """The busiest rank's work divided by the mean."""
    bound: float
    """The least that it can be: 1, or the largest matrix divided by the mean."""
    idle: int
    """How many ranks own nothing."""


def balance(shapes: list[tuple[int, int]], ranks: int, *, low_rank: bool) -> Balance:
    """Return the balance of owners by the cost of a decomposition, or else of a pass."""
    costs = [update_cost(shape, low_rank=low_rank) for shape in shapes]
    work = [0.0] * ranks
    for cost, owner in zip(costs, assign_owners(costs, ranks), strict=True):
        work[owner] += cost
    mean = sum(work) / ranks
    return Balance(max(work) / mean, max(1.0, max(costs) / mean), work.count(0.0))


@cache
def layout(llama: Llama, ranks: int) -> Layout:
    """Return the layout of all parameters, with the linear layers in low rank."""
    shapes = [(shape, True) for shape in llama.linears()]
    shapes += [(shape, False) for shape in llama.others()]
    every = [SplitParameter(shape, BF16, low_rank) for shape, low_rank in shapes]
    return lay_out(Sharding(), {}, every, ranks)


def traffic(llama: Llama, ranks: int) -> dict[str, float]:
    """Return the bytes that a rank receives per step: on average, and at most where uneven."""
    received = layout(llama, ranks).received()
    parameters = sum(parameter.nbytes for parameter in layout(llama, ranks).parameters)
    apart = (ranks - 1) / ranks
    return {
        "FSDP2": 3 * parameters * apart,  # weights twice, and gradients
        "owners": sum(received) / ranks,
        "busiest": max(received),
        "gathering": 2 * parameters * apart,  # weights and gradients
    }


def balances() -> Iterator[str]:
    """Yield a table of how even the work of owners is."""
    yield "| linear layers of | matrices | ranks | by decomposition | by elements | idle ranks |"
    yield "|---|---|---|---|---|---|"
    for llama in MODELS:
        shapes = llama.linears()
        for ranks in RANKS:
            svd, elements = (balance(shapes, ranks, low_rank=kind) for kind in (True, False))
            figures = [f"{b.critical:.2f} (≥ {b.bound:.2f})" for b in (svd, elements)]
            yield (
                f"| {llama.name} | {len(shapes)} | {ranks} | {figures[0]} | {figures[1]} "
                f"| {svd.idle} |"
            )


def transfers() -> Iterator[str]:
    """Yield a table of what a rank receives per step."""
    yield "| model | ranks | FSDP2 itself | gathering everything | owners, mean | owners, busiest |"
    yield "|---|---|---|---|---|---|"
    for llama in MODELS:
        for ranks in RANKS:
            sizes = traffic(llama, ranks)
            share = {key: f"{100 * size / sizes['FSDP2']:.1f} %" for key, size in sizes.items()}
            yield (
                f"| {llama.name} | {ranks} | {size_text(sizes['FSDP2'])} "
                f"| {size_text(sizes['gathering'])} | {size_text(sizes['owners'])} "
                f"({share['owners']}) | {size_text(sizes['busiest'])} ({share['busiest']}) |"
            )


def memories() -> Iterator[str]:
    """Yield a table of the memory of the busiest rank, by `hub.estimate`."""
    names = {"adamw_torch": {}, "adafactor": {}, "galore_adamw": {"target_modules": "layers"}}
    yield (
        "| model | ranks | weights and gradients | state: AdamW | Adafactor | GaLore "
        "| exchange: Adafactor | GaLore |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for llama in MODELS:
        model = llama.model()
        for ranks in RANKS:
            sizes = [hub.estimate(n, model, mesh=(ranks,), **more) for n, more in names.items()]
            cells = [
                sizes[0].parameters + sizes[0].gradients,
                *(size.state for size in sizes),
                *(size.exchange for size in sizes[1:]),
            ]
            yield f"| {llama.name} | {ranks} | {' | '.join(map(size_text, cells))} |"


if __name__ == "__main__":
    for table in (balances(), transfers(), memories()):
        print("\n".join(table), end="\n\n")
