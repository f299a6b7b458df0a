"""One of two ranks whose model FSDP1 shards: `python flattened.py RANK STORE`."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import hub
from hub.groups.flat import fsdp1_shapes
from hub.spec import Trait

RANKS = 2
TRAINS = {
    "adagrad",
    "adamw_torch",
    "adamw_torch_fused",
    "ademamix",
    "lion_32bit",
    "paged_adamw_32bit",
    "paged_ademamix_32bit",
    "paged_lion_32bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_32bit",
    "sgd",
}


class Net(nn.Module):
    """A tied head, a norm, biases and a bare parameter, in two units of FSDP1."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.block = nn.Sequential(nn.Linear(8, 7), nn.LayerNorm(7), nn.Linear(7, 8))
        self.gain = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.head(self.block(x) * self.gain)


def make():
    torch.manual_seed(0)
    return Net()


def wrap(model, *, original=True, strategy=ShardingStrategy.FULL_SHARD):
    return FullyShardedDataParallel(
        model,
        use_orig_params=original,
        sharding_strategy=strategy,
        auto_wrap_policy=ModuleWrapPolicy({nn.Sequential}),
        device_id=torch.device("cpu"),
    )


def arguments(name):
    targets = {"target_modules": "all-linear"} if name.startswith(("galore", "apollo")) else {}
    return {"lr": 0.01, "weight_decay": 0.5, **targets}


def train(model, optimizer):
    """Train on the same batch on all ranks: the mean of equal gradients is exact."""
    for step in range(3):
        tokens = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(model):
    if not isinstance(model, FullyShardedDataParallel):
        return [parameter.detach() for parameter in model.parameters()]
    with FullyShardedDataParallel.summon_full_params(model):
        return [parameter.detach().clone() for parameter in model.parameters()]


def check_groups():
    """Shards have one dimension; what decays follows from the whole parameters."""
    plain, flat = make(), wrap(make())
    assert fsdp1_shapes(flat) == {n: tuple(p.shape) for n, p in plain.named_parameters()}
    assert fsdp1_shapes(plain) == {}
    plans = [hub.plan("adamw_torch", model, weight_decay=0.5) for model in (plain, flat)]
    assert plans[0].groups == plans[1].groups
    given = [{"params": list(flat.named_parameters())}]
    from hub.groups.given import read_given_groups

    spec = hub.describe("adamw_torch")
    groups = read_given_groups(given, spec, flat).split(spec, spec.arguments(), low_rank=set())
    shapes = {p.name: p.shape for p in groups[0].parameters}
    assert [*shapes.values()] == [tuple(p.shape) for p in plain.parameters()]


def check_trained(name, *, before):
    alone = make()
    train(alone, hub.build(name, alone, **arguments(name)))
    model = make()
    if before:
        optimizer = hub.build(name, model, **arguments(name))
        model = wrap(model)
    else:
        model = wrap(model)
        optimizer = hub.build(name, model, **arguments(name))
    train(model, optimizer)
    for ours, theirs in zip(weights(model), weights(alone), strict=True):
        assert torch.equal(ours, theirs), (name, before, (ours - theirs).abs().max())


def check_refused(name):
    model = wrap(make())
    reason = {
        Trait.STEPS_IN_BACKWARD: "one flat gradient",
        Trait.TRAIN_EVAL_MODES: "switched for evaluation",
        Trait.LOW_RANK: "no matrices to project",
    }
    traits = hub.describe(name).traits
    words = next((text for trait, text in reason.items() if trait in traits), "flat pieces")
    refusal = hub.plan(name, model, **arguments(name)).refusal
    assert isinstance(refusal, hub.UnsupportedError), (name, refusal)
    assert words in str(refusal), (name, str(refusal))
    assert refusal.fix


def check_one_flat_parameter():
    model = wrap(make(), original=False)
    refusal = hub.plan("adamw_torch", model).refusal
    assert "use_orig_params=True" in refusal.fix, refusal


def check_unsharded():
    """NO_SHARD keeps the parameters whole, as DDP does."""
    model = wrap(make(), strategy=ShardingStrategy.NO_SHARD)
    assert not hub.plan("adafactor", model).refused
    planned = hub.plan("galore_adamw", model, target_modules="all-linear")
    assert len(planned.target_modules) == 2
    assert "one flat gradient" in hub.plan("lomo", model).refusal.what


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rank, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", store=dist.FileStore(store, RANKS), rank=rank, world_size=RANKS)
    check_groups()
    check_one_flat_parameter()
    check_unsharded()
    for each in hub.list_optimizers():
        if each in TRAINS:
            check_trained(each, before=False)
        else:
            check_refused(each)
    check_refused("adamw_torch_layerwise")
    for each in ("adamw_torch", "lion_32bit"):
        check_trained(each, before=True)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do
