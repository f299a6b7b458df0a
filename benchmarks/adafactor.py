"""Compare a step of hub's Adafactor with `transformers.Adafactor`: 400 parameters, one process."""

import statistics
from functools import partial

import torch
from step import seconds
from torch import nn
from transformers.optimization import Adafactor

import hub

LAYERS = 200
STEPS = 20
ROUNDS = 4
VARIANTS = (
    {"lr": 1e-3, "scale_parameter": False, "relative_step": False},
    {"lr": None, "scale_parameter": True, "relative_step": True, "beta1": 0.9},
)


def model(width: int, dtype: torch.dtype) -> nn.Module:
    """Return matrices and vectors, with gradients."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = nn.Sequential(*(nn.Linear(width, width) for _ in range(LAYERS))).to(device, dtype)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    return module


def one_round(module: nn.Module, foreach: bool, hub_first: bool, **arguments: object) -> float:
    """Return the ratio of the median step times, hub's over Transformers'; the order alternates."""
    ours = hub.build("adafactor", module, foreach=foreach, **arguments)
    theirs = Adafactor(module.parameters(), **arguments)
    times: dict[object, list[float]] = {ours: [], theirs: []}
    for turn in range(STEPS):
        for optimizer in (ours, theirs) if (turn % 2 == 0) is hub_first else (theirs, ours):
            times[optimizer].append(seconds(partial(step, optimizer)))
    return statistics.median(times[ours]) / statistics.median(times[theirs])


def step(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    torch.set_num_threads(1)
    for width, dtype in ((16, torch.float32), (128, torch.float32), (128, torch.bfloat16)):
        for arguments in VARIANTS:
            module = model(width, dtype)
            for foreach in (False, True):
                ratio = statistics.median(
                    one_round(module, foreach, bool(i % 2), **arguments) for i in range(ROUNDS)
                )
                print(f"width {width:3} {dtype} {foreach=!s:5} {arguments}: ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
