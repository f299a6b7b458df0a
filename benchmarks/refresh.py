"""Measure the randomized refresh of low-rank projections: its energy, its time, and the loss.

    python benchmarks/refresh.py energy|time|steps|loss

`energy`: of the gradients of the small Llama of `hub compare` after 100 steps, the part that a
basis keeps, over the part that the truncated SVD keeps. `time`: of one refresh at 1024 x 4096 and
rank 128, the SVD over the range finder. `steps`: the slowest step of a staggered run over the
median. `loss`: on held-out text after training, by each way to refresh and seed.
"""

import gc
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from time import perf_counter, process_time

import torch
from torch import nn

import hub
from hub.compare import tasks
from hub.compare.tasks import Task
from hub.updates.low_rank import leading_directions, singular_bases, sketched_directions

STEPS = 100
SEEDS = 4
RUNS = 3
RANK = 32
GAP = 25
MATRIX = (1024, 4096)
WAYS = (
    {"projection": "svd"},
    {"projection": "randomized"},
    {"projection": "randomized", "refresh": "staggered"},
)
TASK = tasks.Options()
STEPPED = ((12, 1024, 4096), (24, 512, 2048))
"""How many matrices of which size."""
TOKENS = 256
STEPPED_FOR = 60
"""Steps: the first short round of refreshes, and one gap."""


def trained(name: str, seed: int, **arguments: object) -> Iterator[tuple[int, Task, nn.Module]]:
    """Train the small Llama, and yield the number of each step, the task and the model after it."""
    task = tasks.load("llama", TASK)
    model = task.model(seed)
    optimizer = hub.build(name, model, **arguments)
    for step, batch in enumerate(islice(task.batches(seed), STEPS), 1):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
        yield step, task, model


def gradients_of(task: Task, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradients of the weights that `all-linear` projects, on another batch."""
    model.zero_grad()
    task.loss(model, next(task.batches(STEPS))).backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if ".layers." in name and parameter.ndim == 2
    }


def kept(basis: torch.Tensor, gradient: torch.Tensor) -> float:
    return (basis.mT @ gradient).square().sum().item()


def energy() -> None:
    """Print the energies of bases that start from nothing, from the last one, and of sketches."""
    last: dict[str, torch.Tensor] = {}
    for step, task, model in trained("adamw_torch", 0, lr=1e-3):
        if step not in (STEPS - GAP, STEPS):
            continue
        before, last = last, {}
        energies: dict[str, list[float]] = {"cold": [], "warm": [], "sketched": []}
        for name, gradient in gradients_of(task, model).items():
            matrix = gradient if gradient.shape[0] < gradient.shape[1] else gradient.mT
            best = kept(singular_bases(matrix[None], RANK, "left")[0], matrix)
            found = {
                "cold": leading_directions(matrix, RANK, seed=step),
                "sketched": sketched_directions(matrix, RANK, seed=step),
            }
            if name in before:
                found["warm"] = leading_directions(matrix, RANK, seed=step, last=before[name])
            for how, basis in found.items():
                energies[how].append(kept(basis, matrix) / best)
            last[name] = found.get("warm", found["cold"])
        for how, values in energies.items():
            if values:
                print(
                    f"step {step:3}, {how:8}: least {min(values):.5f}, "
                    f"median {statistics.median(values):.5f} of {len(values)}"
                )


def time() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(MATRIX)
    rank = MATRIX[0] // 8
    last = leading_directions(matrix, rank, seed=0)
    ways = {
        "svd": partial(singular_bases, matrix[None], rank, "left"),
        "cold": partial(leading_directions, matrix, rank, seed=1),
        "warm": partial(leading_directions, matrix, rank, seed=1, last=last),
        "sketched": partial(sketched_directions, matrix, rank, seed=1),
    }
    times = {how: [] for how in ways}
    for _ in range(3):
        for how, way in ways.items():
            times[how].append(busy(way))
    medians = {how: statistics.median(values) for how, values in times.items()}
    for how, value in medians.items():
        print(f"{how:8} {1e3 * value:7.1f} ms, {medians['svd'] / value:6.1f} times as fast as svd")


def busy(way: Callable[[], object]) -> float:
    """Return seconds of all threads, in which those of other processes do not count."""
    start = process_time()
    way()
    return process_time() - start


def steps() -> None:
    """Print the slowest steps over the median; each step has the median time of several runs."""
    for name, more in (("galore_adamw", {}), ("apollo_adamw", {"proj": "svd"})):
        for number, rows, columns in STEPPED:
            staggered(name, number, rows, columns, **more)  # the first to load code and map memory
            runs = [staggered(name, number, rows, columns, **more) for _ in range(RUNS)]
            for what in runs[0]:
                times = [statistics.median(t) for t in zip(*(r[what] for r in runs), strict=True)]
                median = statistics.median(times)
                slowest = [round(t / median, 2) for t in sorted(times, reverse=True)[:4]]
                print(
                    f"{name:13} {number} of {rows}x{columns}, {what:13}: median "
                    f"{1e3 * median:.0f} ms, first {times[0] / median:.2f}, slowest {slowest}",
                    flush=True,
                )


def staggered(
    name: str, number: int, rows: int, columns: int, **more: object
) -> dict[str, list[float]]:
    """Return the seconds of each `step()` and of each training step, which has the passes too.

    Without them the first `step()` would be slower, because it would be the first to touch the
    memory of gradients and results. Every run refreshes in the same steps.
    """
    gc.collect()  # the last run
    torch.manual_seed(0)
    modules = nn.ModuleList(nn.Linear(columns, rows, bias=False) for _ in range(number))
    low_rank = {"target_modules": "all-linear", "rank": rows // 8, "update_proj_gap": 40}
    ways = {"projection": "randomized", "refresh": "staggered"}
    optimizer = hub.build(name, modules, **low_rank, **ways, **more)
    times: dict[str, list[float]] = {"step()": [], "training step": []}
    for _ in range(STEPPED_FOR):
        inputs = torch.randn(TOKENS, columns)
        start = perf_counter()
        torch.stack([module(inputs).sin().sum() for module in modules]).sum().backward()
        begin = perf_counter()
        optimizer.step()
        times["step()"].append(perf_counter() - begin)
        times["training step"].append(perf_counter() - start)
        optimizer.zero_grad()
    return times


def loss() -> None:
    low_rank = {"target_modules": "all-linear", "rank": RANK, "update_proj_gap": GAP, "scale": 1.0}
    for way in WAYS:
        losses = []
        for seed in range(SEEDS):
            *_, (_, task, model) = trained("galore_adamw", seed, lr=3e-3, **low_rank, **way)
            with torch.no_grad():
                losses.append(task.evaluate(model))
        mean, spread = statistics.mean(losses), statistics.stdev(losses)
        print(f"galore_adamw {way}: {mean:.4f} ± {spread:.4f}", flush=True)


def main() -> None:
    torch.set_num_threads(2)
    for which in sys.argv[1:]:
        {"energy": energy, "time": time, "steps": steps, "loss": loss}[which]()


if __name__ == "__main__":
    main()
