"""Compare a step of an optimizer built by hub with the same class built by hand, in one process."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import hub

LAYERS = 50
STEPS = 100
ROUNDS = 10


def model() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(64, 64) for _ in range(LAYERS)))
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    return module


def by_hand(module: nn.Module, cls: type[torch.optim.Optimizer], **arguments: object):
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim < 2]
    return cls([{"params": decayed}, {"params": others, "weight_decay": 0.0}], **arguments)


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def one_round(
    build: tuple[Callable[[nn.Module], torch.optim.Optimizer], ...], hub_first: bool
) -> float:
    """Return the ratio of the median step times, hub's over the other's.

    Both step the same parameters, and the order of building and stepping alternates: the position
    of the state in memory alone accounts for several percent.
    """
    module = model()
    order = (0, 1) if hub_first else (1, 0)
    optimizers = {which: build[which](module) for which in order}
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(STEPS):
        for which in order if turn % 2 else order[::-1]:
            times[which].append(seconds(optimizers[which].step))
    return statistics.median(times[0]) / statistics.median(times[1])


def compare(name: str, cls: type[torch.optim.Optimizer], **arguments: object) -> None:
    def ours(module: nn.Module) -> torch.optim.Optimizer:
        return hub.build(name, module, **arguments)

    def theirs(module: nn.Module) -> torch.optim.Optimizer:
        optimizer = by_hand(module, cls, **arguments)
        if hasattr(optimizer, "train"):
            optimizer.train()
        return optimizer

    measured = statistics.median(one_round((ours, theirs), bool(i % 2)) for i in range(ROUNDS))
    control = statistics.median(one_round((theirs, theirs), bool(i % 2)) for i in range(ROUNDS))
    print(
        f"{name:20} {arguments}: ratio {measured:.3f} (at most 1.03), by hand twice {control:.3f}"
    )


def main() -> None:
    from schedulefree import AdamWScheduleFree

    torch.set_num_threads(1)
    compare("adamw_torch", torch.optim.AdamW, lr=1e-3, foreach=False)
    compare("adamw_torch", torch.optim.AdamW, lr=1e-3, foreach=True)
    compare("adamw_torch_fused", torch.optim.AdamW, lr=1e-3, fused=True)
    compare("sgd", torch.optim.SGD, lr=1e-3, momentum=0.9)
    compare("schedule_free_adamw", AdamWScheduleFree, lr=1e-3)


if __name__ == "__main__":
    main()
