"""Compare training steps that update inside the backward pass with eager and upstream ones.

A training step is forward, backward and update. Each pair alternates in one process on one thread,
whose time on the processor counts; the ratio is that of the medians.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import hub

STEPS, ROUNDS = 20, 9
SIZES = (48, 384)
"""How many parameters."""
BATCH = 32
SMALL, LARGE = 32, 64
"""Widths. The first keeps all weights in the processor's cache, whose size would otherwise decide
how the time grows with the number of parameters."""

Step = Callable[[], object]


def problem(parameters: int, width: int) -> tuple[nn.Module, Tensor]:
    """Return linear layers with that many weights and biases, and an input batch."""
    torch.manual_seed(0)
    layers = [nn.Linear(width, width) for _ in range(parameters // 2)]
    return nn.Sequential(*layers), torch.randn(BATCH, width)


def built(name: str, parameters: int, width: int, **arguments: object) -> Step:
    module, x = problem(parameters, width)
    optimizer = hub.build(name, module, lr=1e-3, **arguments)

    def step() -> None:
        module(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def eager(cls: type[torch.optim.Optimizer], parameters: int, width: int) -> Step:
    module, x = problem(parameters, width)
    optimizer = cls(module.parameters(), lr=1e-3, foreach=False)

    def step() -> None:
        module(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def upstream_lomo(parameters: int, width: int) -> Step:
    from lomo_optim import Lomo

    module, x = problem(parameters, width)
    optimizer = Lomo(module, lr=1e-3)
    return lambda: optimizer.fused_backward(module(x).square().mean(), 1e-3)


def layerwise_of_transformers(parameters: int, rank: int, gap: int) -> Step:
    from transformers import Trainer, TrainingArguments

    module, x = problem(parameters, LARGE)
    arguments = TrainingArguments(
        "unused",
        optim="galore_adamw_layerwise",
        optim_target_modules="all-linear",
        optim_args=f"rank={rank}, update_proj_gap={gap}",
        learning_rate=1e-3,
        use_cpu=True,
    )
    cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(arguments, module)
    optimizer = cls(**kwargs)

    def step() -> None:
        module(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Step) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def medians(*steps: Step) -> list[float]:
    """Return the median time of each step; the steps take turns."""
    for step in steps:
        step()
    rounds = []
    for turn in range(ROUNDS):
        times: list[list[float]] = [[] for _ in steps]
        for _ in range(STEPS):
            for which in sorted(range(len(steps)), reverse=bool(turn % 2)):
                times[which].append(seconds(steps[which]))
        rounds.append([statistics.median(each) for each in times])
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def report(what: str, ours: float, theirs: float, most: float) -> None:
    print(f"{what:68} {ours / theirs:6.2f} (at most {most})")


def lomo() -> None:
    kinds = (partial(built, "lomo"), partial(eager, torch.optim.SGD), upstream_lomo)
    times = medians(*(make(parameters, SMALL) for make in kinds for parameters in SIZES))
    small, large, sgd_small, sgd_large, theirs_small, theirs_large = times
    few, many = SIZES
    linear = many / few
    report(f"lomo, {few} parameters, to SGD foreach=False", small, sgd_small, 1.5)
    report(f"lomo, {many} parameters, to SGD foreach=False", large, sgd_large, 1.5)
    report(f"lomo, growth from {few} to {many} parameters, to linear", large, linear * small, 1.5)
    print(f"  SGD's growth: {sgd_large / sgd_small / linear:.2f} times linear")
    print(
        f"  upstream's Lomo: {theirs_small / sgd_small:.2f} and {theirs_large / sgd_large:.2f} "
        f"times SGD, growth {theirs_large / theirs_small / linear:.2f} times linear"
    )


def adamw() -> None:
    for parameters in SIZES:
        ours, plain = medians(
            built("adamw_torch_layerwise", parameters, LARGE, foreach=False),
            eager(torch.optim.AdamW, parameters, LARGE),
        )
        # torch calls its step for each parameter, which takes half as long as the update.
        report(f"adamw_torch_layerwise, {parameters} parameters, to AdamW", ours, plain, 1.8)


def galore() -> None:
    for gap in (200, 2):
        low_rank = {"target_modules": "all-linear", "rank": 4, "update_proj_gap": gap}
        ours, theirs = medians(
            built("galore_adamw_layerwise", SIZES[0], LARGE, **low_rank),
            layerwise_of_transformers(SIZES[0], 4, gap),
        )
        report(f"galore_adamw_layerwise, SVD every {gap} steps, to Transformers'", ours, theirs, 1)


def main() -> None:
    torch.set_num_threads(1)
    lomo()
    adamw()
    galore()


if __name__ == "__main__":
    main()
