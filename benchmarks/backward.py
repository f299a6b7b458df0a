"""A whole training step (forward, backward, update) inside the backward pass, against others.

Each pair alternates in one process, on one thread; the ratio is of the medians.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import hub

STEPS, ROUNDS = 20, 9
WIDTH, BATCH = 64, 32

Step = Callable[[], object]


def model(parameters: int) -> nn.Module:
    """Return linear layers with that many parameters, weights and biases."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(parameters // 2)))


def data() -> Tensor:
    return torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(0))


def built(name: str, parameters: int, **arguments: object) -> Step:
    module, x = model(parameters), data()
    optimizer = hub.build(name, module, lr=1e-3, **arguments)

    def step() -> None:
        module(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def eager(cls: type[torch.optim.Optimizer], parameters: int) -> Step:
    module, x = model(parameters), data()
    optimizer = cls(module.parameters(), lr=1e-3, foreach=False)

    def step() -> None:
        module(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def upstream_lomo(parameters: int) -> Step:
    from lomo_optim import Lomo

    module, x = model(parameters), data()
    optimizer = Lomo(module, lr=1e-3)
    return lambda: optimizer.fused_backward(module(x).square().mean(), 1e-3)


def layerwise_of_transformers(parameters: int, rank: int, gap: int) -> Step:
    from transformers import Trainer, TrainingArguments

    module, x = model(parameters), data()
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
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def medians(*steps: Step) -> list[float]:
    """Return the median time of each, run in turns."""
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
    took = {}
    for parameters in (48, 384):
        ours, plain, theirs = medians(
            built("lomo", parameters),
            eager(torch.optim.SGD, parameters),
            upstream_lomo(parameters),
        )
        took[parameters] = ours
        report(f"lomo, {parameters} parameters, to SGD foreach=False", ours, plain, 2.0)
        print(f"  upstream's Lomo: {theirs / plain:.2f} times SGD")
    report("lomo, growth from 48 to 384 parameters, to linear", took[384], 8 * took[48], 1.5)


def main() -> None:
    torch.set_num_threads(1)
    lomo()
    for parameters in (48, 384):
        ours, plain = medians(
            built("adamw_torch_layerwise", parameters), eager(torch.optim.AdamW, parameters)
        )
        report(f"adamw_torch_layerwise, {parameters} parameters, to AdamW", ours, plain, 1.5)
    for gap in (200, 2):
        ours, theirs = medians(
            built(
                "galore_adamw_layerwise",
                48,
                target_modules="all-linear",
                rank=4,
                update_proj_gap=gap,
            ),
            layerwise_of_transformers(48, 4, gap),
        )
        report(f"galore_adamw_layerwise, SVD every {gap} steps, to Transformers'", ours, theirs, 1)


if __name__ == "__main__":
    main()
