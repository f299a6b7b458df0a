"""What two ranks do in the tests of sharded steps; each function asserts on every rank."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp._common_utils import TrainingState
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

import hub
from hub.running.sharded import whole
from hub.running.sharded.layout import in_buckets
from hub.testing.process_model import ALL, EVEN, loss_of, make_net
from hub.testing.strategies import whole_weights

LOW_RANK = {"target_modules": ["wide", "up"], "rank": 4, "update_proj_gap": 2}


def shard(net):
    fully_shard(net.up)
    return fully_shard(net)


def arguments(name):
    return {"lr": 0.01, "weight_decay": 0.1, **(LOW_RANK if "galore" in name else {})}


def train(net, optimizer, steps, start=0):
    """Every rank has the whole batch, so that its gradients are those of one process."""
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss_of(net, step, 0).backward()
        optimizer.step()


def trained(name, *, steps=3, dtype=torch.float32, is_sharded=True, **more):
    """Return the whole weights after some steps, and the optimizer."""
    net = make_net(ALL, dtype)
    if is_sharded:
        shard(net)
    optimizer = hub.build(name, net, **arguments(name), **more)
    train(net, optimizer, steps)
    return whole_weights(net), optimizer


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other), (one - other).abs().max()


def many_buckets(name):
    """As many buckets as one owner has parameters are one bucket."""
    expected, _ = trained(name, is_sharded=False)
    assert_equal(trained(name)[0], expected)
    counts = []

    def small(members, ranks):
        buckets = list(in_buckets(members, ranks, 1))
        counts.append(len(buckets))
        return buckets

    with mock.patch.object(whole, "in_buckets", small):
        assert_equal(trained(name)[0], expected)
    assert min(counts) > 3


def rows_of_whole_blocks(_):
    """Rows of whole blocks are quantized where they are; all others go to an owner."""
    _, optimizer = trained("adamw_8bit", min_8bit_size=1024, embeddings_32bit=False)
    kinds = {
        name: member.kind
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
        for member in [optimizer.hub_late_sharding.members.get(parameter)]
    }
    assert kinds["wide.weight"] == kinds["embed.weight"] == "rows"
    assert kinds["up.weight"] == kinds["gate.weight"] == "whole"
    assert kinds["norm.weight"] == "rows"  # too small to be quantized
    saved = optimizer.state_dict()
    names = [name for group in saved["param_groups"] for name in group["param_names"]]
    state = saved["state"][names.index("wide.weight")]["__bnb_optimizer_quant_state__"]
    assert {key: type(value) for key, value in state.items()} == {
        "state1": DTensor,
        "state2": DTensor,
        "absmax1": DTensor,
        "absmax2": DTensor,
        "qmap1": torch.Tensor,
        "qmap2": torch.Tensor,
    }
    assert state["absmax1"].shape == (64,)


def first_step_is_clipped(name):
    """The first step clips the gradients of the parameters that it adopts."""
    net = make_net(EVEN, torch.float32)
    optimizer = hub.build(name, net, max_grad_norm=1e-3, **arguments(name))
    shard(net)
    train(net, optimizer, 1)
    assert 0 < hub.grad_norm(optimizer) <= 1.0001e-3


def norm_before_the_first_step(name):
    """The norm is that of the parameters that the first step will adopt."""
    net = make_net(EVEN, torch.float32)
    optimizer = hub.build(name, net, **arguments(name))
    shard(net)
    loss_of(net, 0, 0).backward()
    before = hub.grad_norm(optimizer)
    assert type(before) is torch.Tensor
    gradients = [p.grad for p in net.parameters()]
    torch.testing.assert_close(before, torch.nn.utils.get_total_norm(gradients).full_tensor())


def adopted_after_an_evaluation(name):
    """FSDP2 keeps the parameters of its root gathered after a forward pass."""
    expected, _ = trained(name)
    net = make_net(ALL, torch.float32)
    optimizer = hub.build(name, net, **arguments(name))
    shard(net)
    with torch.no_grad():
        loss_of(net, 0, 0)
    assert not any(isinstance(p, DTensor) for p in net.head.parameters())
    optimizer.state_dict()
    train(net, optimizer, 3)
    assert_equal(whole_weights(net), expected)


def unfrozen_later(name):
    """A group that is added later is stepped by its kind too, and owners stay."""

    def run(is_sharded):
        net = make_net(ALL, torch.float32)
        net.head.requires_grad_(False)
        if is_sharded:
            shard(net)
        optimizer = hub.build(name, net, **arguments(name))
        train(net, optimizer, 2)
        net.head.requires_grad_(True)
        optimizer.add_param_group({"params": list(net.head.parameters()), "weight_decay": 0.0})
        train(net, optimizer, 2, start=2)
        return whole_weights(net)

    assert_equal(run(is_sharded=True), run(is_sharded=False))


def detached(name):
    """A detached optimizer still steps sharded parameters, eagerly."""
    expected, _ = trained(name.removesuffix("_layerwise"), steps=4)
    net = shard(make_net(ALL, torch.float32))
    optimizer = hub.build(name, net, **arguments(name))
    train(net, optimizer, 2)
    hub.detach(optimizer)
    train(net, optimizer, 2, start=2)
    assert_equal(whole_weights(net), expected)


def closures(name):
    """A closure is called once, with gradients enabled."""
    expected, _ = trained(name)
    net = shard(make_net(ALL, torch.float32))
    optimizer = hub.build(name, net, **arguments(name))

    for step in range(3):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(net, step, 0)
            loss.backward()
            return loss

        assert optimizer.step(closure) > 0
    assert_equal(whole_weights(net), expected)


def with_a_schedule(name):
    """A schedule made before the model is sharded wraps the step that is called later."""
    expected, _ = trained(name)
    net = make_net(ALL, torch.float32)
    optimizer = hub.build(name, net, **arguments(name))
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    shard(net)
    for step in range(3):
        train(net, optimizer, 1, start=step)
        schedule.step()
    assert_equal(whole_weights(net), expected)


def state_of_one_process(name):
    """Whole tensors, as one process saves them, are loaded by every rank."""
    expected, _ = trained(name, steps=4, is_sharded=False)
    net = make_net(ALL, torch.float32)
    optimizer = hub.build(name, net, **arguments(name))
    train(net, optimizer, 2)
    other = make_net(ALL, torch.float32)
    other.load_state_dict(net.state_dict())
    shard(other)
    resumed = hub.build(name, other, **arguments(name))
    resumed.load_state_dict(optimizer.state_dict())
    train(other, resumed, 2, start=2)
    assert_equal(whole_weights(other), expected)


def ignored_parameters(name):
    """Parameters that FSDP2 leaves alone are stepped by every rank; fused kernels take no mix."""
    expected, _ = trained(name.removesuffix("_fused"))
    net = make_net(ALL, torch.float32)
    optimizer = hub.build(name, net, **arguments(name))
    fully_shard(net, ignored_params={net.norm.weight, net.head.weight})
    train(net, optimizer, 3)
    assert_equal(whole_weights(net), expected)


def tensor_parallel(name):
    """Columns split by tensor parallelism are refused in the first step, and nothing changes."""
    net = make_net(EVEN, torch.float32)
    optimizer = hub.build(name, net, **arguments(name))
    parallelize_module(net.down, init_device_mesh("cpu", (2,)), RowwiseParallel())
    before = whole_weights(net)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(hub.UnsupportedError, match=r"placements are S.*1") as refused:
        optimizer.step()
    assert refused.value.where == "down.weight"
    assert_equal(whole_weights(net), before)
    assert hub.plan(name, net, **arguments(name)).refusal.what == refused.value.what


def whole_of_fsdp1(net, wrapped):
    """Return all weights; in a forward pass that an error ended, they are still gathered."""
    if wrapped.training_state is TrainingState.IDLE:
        with FullyShardedDataParallel.summon_full_params(wrapped):
            return joined(net.parameters())
    return joined(net.parameters())


def joined(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def flattened_after_the_build(name, *, use_orig_params):
    """FSDP1 around a model that has an optimizer: equal, or refused before a weight changes."""
    net = make_net(EVEN, torch.float32)
    before = joined(net.parameters())
    optimizer = hub.build(name, net, **arguments(name))
    wrapped = FullyShardedDataParallel(
        net, use_orig_params=use_orig_params, device_id=torch.device("cpu")
    )
    try:
        train(wrapped, optimizer, 3)
    except hub.HubError as error:
        assert torch.equal(whole_of_fsdp1(net, wrapped), before)
        return f"{type(error).__name__}: {error.fix}"
    expected = make_net(EVEN, torch.float32)
    train(expected, hub.build(name, expected, **arguments(name)), 3)
    assert torch.equal(whole_of_fsdp1(net, wrapped), joined(expected.parameters()))
    return "equal"


def failing_on_an_owner(name):
    """A failure on one rank is the same error on all; no weight changes, and training goes on."""
    net = shard(make_net(EVEN, torch.float32))
    optimizer = hub.build(name, net, **arguments(name))
    train(net, optimizer, 2)
    before, counted = whole_weights(net), optimizer.state_dict()["param_groups"]
    loss_of(net, 2, 0).backward()
    net.wide.weight.grad.to_local().fill_(float("nan"))
    with pytest.raises(hub.HubError, match="the update failed on rank") as failed:
        optimizer.step()
    errors = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(errors, str(failed.value))
    assert len(set(errors)) == 1
    assert_equal(whole_weights(net), before)
    assert optimizer.state_dict()["param_groups"] == counted
    optimizer.zero_grad()
    train(net, optimizer, 1, start=3)
    assert not any(torch.equal(a, b) for a, b in zip(whole_weights(net), before, strict=True))
