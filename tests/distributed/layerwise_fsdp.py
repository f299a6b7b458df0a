"""Cases under FSDP2; with four ranks, under HSDP."""

import torch
from layerwise_common import (
    RANK,
    RANKS,
    STEPS,
    clip_by_hand,
    half,
    in_one_process,
    raises,
    share,
    subject,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import hub
from hub.running.layerwise.released import ReleasedGradient
from hub.testing.kit_model import make_model

UNEVEN = 2e-6 if RANKS == 3 else 0.0
"""FSDP2 (torch 2.13) divides by 3 only after some additions."""


def shard(model):
    """Shard a model by FSDP2, over two dimensions if there are four ranks."""
    mesh = (
        init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
        if RANKS == 4
        else None
    )
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


NATIVE = {
    "adagrad_layerwise": 0.0,
    "adamw_torch_layerwise": 0.0,
    "adamw_torch_fused_layerwise": 0.0,
    "sgd_layerwise": 0.0,
    "rmsprop_layerwise": 0.0,
    "schedule_free_adamw_layerwise": 0.0,
    "schedule_free_radam_layerwise": 0.0,
    "schedule_free_sgd_layerwise": 0.0,
    "stable_adamw_layerwise": 2e-7,
    "lomo": 0.0,
    "adalomo": 5e-7,
}


def sharded():
    """Native names under FSDP2, as far as their sums of a whole parameter round alike."""
    for name, tolerance in NATIVE.items():
        assert_near(in_one_process(name), train_sharded(name), tolerance + UNEVEN, name)


def train_sharded(name, parts=1, sync=None, before_step=None, **arguments):
    one = subject(name)
    model = shard(one.model())
    optimizer = one.build(model, **arguments)
    for step in range(STEPS):
        model.take_detour = step % 2 == 0
        for number, tokens in enumerate(half(step, RANK, parts)):
            if sync is not None:
                model.set_requires_gradient_sync(sync(number))
            share(model, optimizer, tokens, parts)
        released = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(type(g._local_tensor) is ReleasedGradient for g in released)
        assert len(released) == (21 if model.take_detour else 19), len(released)
        if before_step is not None:
            before_step(model, optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return model


def assert_near(expected, model, tolerance, label):
    for (name, p), (_, q) in zip(
        expected.named_parameters(), model.named_parameters(), strict=True
    ):
        whole = q.full_tensor() if isinstance(q, DTensor) else q
        assert (p - whole).abs().max() <= tolerance, (label, name, (p - whole).abs().max().item())


def sharded_accumulation():
    """The sum counts as complete in time, whether or not the user switches the syncs off."""
    for name in ("adamw_torch_layerwise", "lomo"):
        for sync in (None, lambda number: number == 2):
            model = train_sharded(name, parts=3, sync=sync, gradient_accumulation_steps=3)
            expected = in_one_process(name, parts=3)
            assert_near(
                expected, model, UNEVEN + (5e-7 if sync is None else 0.0), (name, sync is None)
            )


def sharded_clipping():
    norms = []

    def note(model, optimizer):
        found = hub.grad_norm(optimizer)
        assert type(found) is torch.Tensor
        norms.append(found.item())
        if isinstance(model.gain, DTensor):
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            assert abs(torch.nn.utils.get_total_norm(gradients).full_tensor() - found) <= 1e-6

    for mode, given in (
        ("exact", {"max_grad_norm": 0.05, "clipping": "exact"}),
        ("per_parameter", {"max_grad_norm": 0.05, "clipping": "per_parameter"}),
        ("previous_norm", {"max_grad_norm": 0.05, "clipping": "previous_norm"}),
        ("value", {"clip_grad_value": 1e-3}),
    ):
        norms.clear()
        clip, name = (
            clip_by_hand(mode),
            "adamw_torch_layerwise" if mode == "exact" else "sgd_layerwise",
        )
        expected = in_one_process(
            name, before_step=lambda *both, clip=clip: (note(*both), clip(*both))
        )
        model = train_sharded(name, before_step=note, **given)
        assert_near(expected, model, 5e-7 + UNEVEN, mode)
        if mode == "value":
            continue  # these norms are those of the clipped gradients
        assert all(abs(a - b) <= 2e-6 for a, b in zip(norms[:STEPS], norms[STEPS:], strict=True)), (
            norms
        )


def sharded_failure():
    """One rank fails: the backward pass goes on to its end, where all ranks raise."""
    model = shard(make_model())
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    for_one = optimizer.hub_engine._step.for_one
    run = for_one()

    def fail(live, item):
        if item.parameter is model.blocks[1].up.weight and RANK == 1:
            raise ValueError("out of memory, say")
        run(live, item)

    for step in range(2):
        optimizer.hub_engine._step.for_one = lambda: fail
        error = raises(
            "the update of blocks.1.up.weight failed: out of",
            share,
            model,
            optimizer,
            half(step, RANK)[0],
        )
        assert error.what.startswith("on rank 1, ")
        optimizer.hub_engine._step.for_one = for_one
        optimizer.step()
        share(model, optimizer, half(2, RANK)[0])
        optimizer.step()


def replaced():
    """Parameters that sharding replaced after the build, once the groups hold the new ones."""
    model = make_model()
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    names = [group["param_names"] for group in optimizer.param_groups]
    before = [p for group in optimizer.param_groups for p in group["params"]]
    shard(model)
    for group, own in zip(optimizer.param_groups, names, strict=True):
        group["params"][:] = [model.get_parameter(name) for name in own]
    optimizer.hub_engine.place_hooks()
    assert not any(p._post_accumulate_grad_hooks for p in before)
    for step in range(STEPS):
        model.take_detour = step % 2 == 0
        share(model, optimizer, half(step, RANK)[0])
        optimizer.step()
    assert_near(in_one_process("adamw_torch_layerwise"), model, 0.0, "replaced")
