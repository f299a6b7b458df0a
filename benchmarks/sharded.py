"""Compare three ways to step parameters that FSDP2 shards; count layerwise gradients under DDP.

    torchrun --nproc-per-node 2 benchmarks/sharded.py

- native: the class's own step on DTensors
- gather: every rank gathers all weights and gradients, steps them, and keeps its rows
- hub: each whole matrix is stepped by its owner

They alternate, step by step, on one thread per rank; the ratios are those of the medians: of the
time that passes, and of rank 0's processor time, which other work on the machine disturbs less. hub
should take at most 0.7 of gathering.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.arguments import LowMemory
from hub.backend import load_object

WIDTH, INNER, LAYERS = 256, 688, 6
"""4.7 million parameters, 19 MB, in the proportions of a Llama."""
STEPS = 9
CASES = {
    "adafactor": ("adafactor", {"relative_step": False, "scale_parameter": False}),
    "galore_adamw, projections every 200 steps": ("galore_adamw", {"update_proj_gap": 200}),
    "galore_adamw, projections every step": ("galore_adamw", {"update_proj_gap": 1}),
}
LOW_RANK = {"target_modules": "all-linear", "rank": 32}

Step = Callable[[], object]


def make_model() -> nn.Module:
    torch.manual_seed(0)
    shapes = [*[(WIDTH, WIDTH)] * 4, (WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH)]
    layers = [nn.Linear(*shape, bias=False) for _ in range(LAYERS) for shape in shapes]
    return nn.ModuleList(layers)


def build(name: str, model: nn.Module, arguments: dict) -> torch.optim.Optimizer:
    more = LOW_RANK if name.startswith("galore") else {}
    return hub.build(name, model, lr=1e-3, **more, **arguments)


def sharded() -> nn.Module:
    model = make_model()
    for layer in model:
        fully_shard(layer)
    return model


def by_hub(name: str, arguments: dict) -> tuple[nn.Module, Step]:
    model = sharded()
    return model, build(name, model, arguments).step


def natively(name: str, arguments: dict) -> tuple[nn.Module, Step]:
    model, spec = sharded(), hub.describe(name)
    optimizer = build(name, model, arguments)
    groups = [dict(group) for group in optimizer.param_groups]
    values = optimizer.hub_plan.values.items()
    of_hub = {*spec.low_rank, *LowMemory.model_fields}
    own = {key: value for key, value in values if key not in of_hub}
    return model, load_object(spec.factory)(groups, **own).step


def by_gathering(name: str, arguments: dict) -> tuple[nn.Module, Step]:
    model, copy = sharded(), make_model()
    optimizer = build(name, copy, arguments)

    def step() -> None:
        for own, full in zip(model.parameters(), copy.parameters(), strict=True):
            full.data = own.detach().full_tensor()
            full.grad = own.grad.full_tensor()
        optimizer.step()
        with torch.no_grad():
            for own, full in zip(model.parameters(), copy.parameters(), strict=True):
                rows = distribute_tensor(
                    full.detach(), own.device_mesh, own.placements, src_data_rank=None
                )
                own.to_local().copy_(rows.to_local())
                full.data, full.grad = torch.empty(0), None

    return model, step


def give_gradients(model: nn.Module, number: int) -> None:
    """Give the parameters the same random gradients on every side, sharded as FSDP2 leaves them."""
    torch.manual_seed(1000 * number + dist.get_rank())
    for parameter in model.parameters():
        parameter.grad = DTensor.from_local(
            torch.randn_like(parameter.to_local()), parameter.device_mesh, parameter.placements
        )


def measured(step: Step) -> tuple[float, float]:
    """Return the milliseconds that pass during a step, and those of this rank's processor."""
    dist.barrier()
    begin = time.perf_counter(), time.process_time()
    step()
    dist.barrier()
    return 1000 * (time.perf_counter() - begin[0]), 1000 * (time.process_time() - begin[1])


def compare(title: str, name: str, arguments: dict) -> None:
    ways = {"native": natively, "gather": by_gathering, "hub": by_hub}
    sides = {way: make(name, arguments) for way, make in ways.items()}
    spent: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(STEPS + 1):
        for way, (model, step) in sides.items():
            give_gradients(model, number)
            spent[way].append(measured(step))
    for full, own in zip(
        sides["gather"][0].parameters(), sides["hub"][0].parameters(), strict=True
    ):
        assert torch.equal(full.to_local(), own.to_local()), "hub's weights differ"
    say(title)
    for kind, times in (("passed", 0), ("processor", 1)):
        median = {way: statistics.median(t[times] for t in all_[1:]) for way, all_ in spent.items()}
        shown = ", ".join(f"{way} {milliseconds:.0f} ms" for way, milliseconds in median.items())
        say(f"  {kind}: {shown}; hub / gather {median['hub'] / median['gather']:.2f}")


class Chain(nn.Module):
    """The layers one after the other, which backward passes reach in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = make_model()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last layer's output; each gets as many columns as it takes."""
        for layer in self.layers:
            x = layer(x[..., : layer.in_features].repeat(1, -(-layer.in_features // x.shape[-1])))
        return x


def measure_gradients(name: str) -> None:
    """Say how many bytes of gradients are there at most, of all at once."""
    model = Chain()
    parameters = list(model.parameters())
    peak = 0

    def look(_: nn.Parameter) -> None:
        nonlocal peak
        alive = sum(p.grad.nbytes for p in parameters if type(p.grad) is torch.Tensor)
        peak = max(peak, alive)

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(look)  # before hub's
    optimizer = hub.build(name, model, lr=1e-3)
    replica = DistributedDataParallel(model)
    for _ in range(2):
        replica(torch.randn(4, WIDTH)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    say(f"{name} under DDP: gradients {peak / sum(p.nbytes for p in parameters):.0%} of all")


def say(text: str) -> None:
    if dist.get_rank() == 0:
        print(text, flush=True)


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for title, (name, arguments) in CASES.items():
        compare(title, name, arguments)
    for name in ("adamw_torch", "adamw_torch_layerwise"):
        measure_gradients(name)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
