"""Time a whole `hub.build` on 18,432 parameters with two regular expressions, on the processor."""

import gc
import statistics
import time

from torch import nn

import hub

BLOCKS, TURNS = 3072, 7
RULES = {r".*\.attn\.weight": {"lr_scale": 0.1}, r".*\.mlp\..*": {"lr": 1e-4}}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Linear(2, 2)
        self.mlp = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


def seconds(build: object) -> float:
    gc.collect()
    start = time.process_time()
    build()
    return time.process_time() - start


def main() -> None:
    model = nn.Sequential(*(Block() for _ in range(BLOCKS)))
    count = len(list(model.parameters()))
    hub.build("sgd", nn.Linear(1, 1))  # torch imports its compiler for the first optimizer
    hub.build("galore_adamw", nn.Linear(4, 4), target_modules="all-linear", rank=1)
    for label, build in (
        ("rules", lambda: hub.build("adamw_torch", model, param_rules=RULES)),
        (
            "targets",
            lambda: hub.build(
                "galore_adamw", model, target_modules=[r".*\.attn", r".*\.mlp"], rank=1
            ),
        ),
    ):
        times = [seconds(build) for _ in range(TURNS)]
        print(f"{count} parameters, two {label}: {statistics.median(times):.3f} s (at most 0.30)")


if __name__ == "__main__":
    main()
