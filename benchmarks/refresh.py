"""Measure the randomized refresh of low-rank projections: its energy, its time, and the loss.

    python benchmarks/refresh.py energy|time|steps|loss

`energy`: of the gradients of the small Llama of `hub compare` after 100 steps, the part that a
basis keeps, over the part that the truncated SVD keeps. `time`: of one refresh at 1024 x 4096 and
rank 128, the SVD over the range finder. `steps`: the slowest step of a staggered run over the
median. `loss`: on held-out text after training, by each way to refresh and seed.
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial
from time import process_time

import torch
from torch import nn

import hub
from hub.compare.execution.training import Trainer
from hub.compare.settings import Contender, Settings
from hub.compare.tasks import corpus
from hub.updates.low_rank import leading_directions, singular_bases, sketched_directions

STEPS = 100
RANK = 32
GAP = 25


def trained(contender: Contender, seed: int):
    """Yield the number of each step, the trainer after it, and the text."""
    chosen = Settings(contenders=(contender,), steps=STEPS, seed=seed)
    shape = chosen.batch_size, chosen.sequence_length
    text = corpus.load(None, chosen.sequence_length)
    trainer = Trainer.build(chosen, contender)
    batches = corpus.training_batches(text, *shape, chosen.seed)
    for step in range(1, STEPS + 1):
        trainer.step(step, next(batches))
        yield step, trainer, text


def gradients_of(trainer: Trainer, text: corpus.Corpus) -> dict[str, torch.Tensor]:
    """Return the gradients of the weights that `all-linear` projects."""
    trainer.model.zero_grad()
    batch = next(corpus.training_batches(text, 8, 128, seed=STEPS))
    trainer._loss(batch).backward()  # noqa: SLF001
    found = {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if ".layers." in name and parameter.ndim == 2
    }
    trainer.model.zero_grad()
    return found


def kept(basis: torch.Tensor, gradient: torch.Tensor) -> float:
    return (basis.mT @ gradient).square().sum().item()


def energy() -> None:
    """Print the energies of bases that start from nothing, from the last one, and of sketches."""
    last: dict[str, torch.Tensor] = {}
    for step, trainer, text in trained(Contender("adamw_torch", "lr=1e-3"), 0):
        if step not in (STEPS - GAP, STEPS):
            continue
        before, last = last, {}
        energies: dict[str, list[float]] = {"cold": [], "warm": [], "sketched": []}
        for name, gradient in gradients_of(trainer, text).items():
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
    matrix = torch.randn(1024, 4096)
    last = leading_directions(matrix, 128, seed=0)
    ways = {
        "svd": partial(singular_bases, matrix[None], 128, "left"),
        "cold": partial(leading_directions, matrix, 128, seed=1),
        "warm": partial(leading_directions, matrix, 128, seed=1, last=last),
        "sketched": partial(sketched_directions, matrix, 128, seed=1),
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
    for name, more in (("galore_adamw", {}), ("apollo_adamw", {"proj": "svd"})):
        for number, rows, columns in ((12, 1024, 4096), (24, 512, 2048)):
            torch.manual_seed(0)
            module = nn.Sequential(*(nn.Linear(columns, rows, bias=False) for _ in range(number)))
            optimizer = hub.build(
                name,
                module,
                target_modules="all-linear",
                rank=rows // 8,
                update_proj_gap=40,
                projection="randomized",
                refresh="staggered",
                **more,
            )
            for parameter in module.parameters():
                parameter.grad = torch.randn_like(parameter)
            times = [busy(optimizer.step) for _ in range(100)]
            median = statistics.median(times)
            ranked = sorted(times, reverse=True)
            print(
                f"{name:13} {number} of {rows}x{columns}: median {1e3 * median:.0f} ms, first "
                f"{times[0] / median:.2f}, slowest {[round(t / median, 2) for t in ranked[:4]]}"
            )


def loss() -> None:
    for way in (
        "projection=svd",
        "projection=randomized",
        "projection=randomized,refresh=staggered",
    ):
        options = f"rank={RANK},update_proj_gap={GAP},lr=3e-3,scale=1.0,{way}"
        losses = []
        for seed in range(4):
            *_, (_, trainer, text) = trained(Contender("galore_adamw", options), seed)
            losses.append(trainer.evaluate("after", text).loss)
        mean, spread = statistics.mean(losses), statistics.stdev(losses)
        print(f"galore_adamw {way}: {mean:.4f} ± {spread:.4f}", flush=True)


def main() -> None:
    torch.set_num_threads(2)
    for which in sys.argv[1:]:
        {"energy": energy, "time": time, "steps": steps, "loss": loss}[which]()


if __name__ == "__main__":
    main()
