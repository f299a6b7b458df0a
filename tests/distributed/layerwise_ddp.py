"""Cases under DDP, and without any wrapper."""

import gc
import time
from copy import deepcopy

import torch
from layerwise_common import (
    RANK,
    RANKS,
    SOME,
    STEPS,
    assert_equal,
    clip_by_hand,
    half,
    in_all,
    in_one_process,
    raises,
    same_everywhere,
    share,
    subject,
)
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.measuring import GradientMeter
from hub.running.attach import optimizers_of
from hub.running.layerwise.processes import OneProcess
from hub.testing.comparing import weights
from hub.testing.kit_model import batch, loss_of, make_model


def some_names():
    """One name of each kind of state, on any number of ranks."""
    for name in SOME:
        assert_equal(in_one_process(name), in_all(name), name)


def without_ddp():
    """hub averages, and gives all ranks the weights of rank 0, those without gradients too."""
    for name in ("adamw_torch_layerwise", "lomo"):
        assert_equal(in_one_process(name), in_all(name, wrap=lambda model: model), name)


def accumulated():
    """Only the complete sum is averaged, with and without DDP's `no_sync`."""
    for name in ("adamw_torch_layerwise", "adafactor_layerwise", "lomo", "adalomo"):
        expected = in_one_process(name, parts=3)
        for sync in (None, lambda number: number == 2):
            model = in_all(name, parts=3, sync=sync, gradient_accumulation_steps=3)
            assert_equal(expected, model, (name, sync))


def accumulated_to_an_incomplete_end():
    """`step()` updates what it finds, and `hub.grad_norm` is the norm of the averaged sums."""
    norms = []

    def note(_, optimizer):
        norms.append(hub.grad_norm(optimizer).item())

    name = "adamw_torch_layerwise"
    expected = in_one_process(name, parts=2, before_step=note)
    model = in_all(name, parts=2, gradient_accumulation_steps=4, before_step=note)
    assert_equal(expected, model, name)
    assert norms[:STEPS] == norms[STEPS:], norms


def clipped():
    """By the exact norm, by each parameter's own, by each element; norms are those of the mean."""
    norms = []

    def note(_, optimizer):
        norms.append(hub.grad_norm(optimizer).item())

    for name in ("adamw_torch_layerwise", "sgd_layerwise", "lomo", "adalomo"):
        norms.clear()
        clip = clip_by_hand("exact")
        expected = in_one_process(
            name, before_step=lambda *both, clip=clip: (note(*both), clip(*both))
        )
        model = in_all(name, clipping="exact", max_grad_norm=0.05, before_step=note)
        assert_equal(expected, model, name)
        assert norms[:STEPS] == norms[STEPS:], norms


def clipped_otherwise():
    for mode, arguments in (
        ("per_parameter", {"clipping": "per_parameter", "max_grad_norm": 0.05}),
        ("previous_norm", {"clipping": "previous_norm", "max_grad_norm": 0.05}),
        ("value", {"clip_grad_value": 1e-3}),
    ):
        expected = in_one_process("sgd_layerwise", before_step=clip_by_hand(mode))
        assert_equal(expected, in_all("sgd_layerwise", **arguments), mode)


def every_way_to_wrap():
    """Options of DDP, which averages nothing itself."""
    expected = in_one_process("adamw_torch_layerwise")
    for options in (
        {"find_unused_parameters": True},
        {"static_graph": True},
        {"gradient_as_bucket_view": True},
        {"broadcast_buffers": False, "bucket_cap_mb": 1},
    ):
        model = in_all(
            "adamw_torch_layerwise",
            wrap=lambda model, o=options: DistributedDataParallel(model, **o),
        )
        assert_equal(expected, model, options)


def compiled():
    """With torch.compile inside and outside of DDP."""
    expected = in_one_process("adamw_torch_layerwise")
    for wrap in (
        lambda model: DistributedDataParallel(torch.compile(model, backend="eager")),
        lambda model: torch.compile(DistributedDataParallel(model), backend="eager"),
    ):
        assert_equal(expected, in_all("adamw_torch_layerwise", wrap=wrap), "compiled")


def sparse_gradients():
    """The embeddings that either rank uses."""
    found = []
    for name in ("sgd", "sgd_layerwise"):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Embedding(50, 8, sparse=True), torch.nn.Linear(8, 4))
        optimizer = hub.build(name, model, lr=0.1)
        wrapped = model if name == "sgd" else DistributedDataParallel(model)
        for step in range(STEPS):
            for rank in range(2) if name == "sgd" else [RANK]:
                loss = wrapped(torch.arange(5) + 10 * rank + step).square().sum()
                (loss / 2 if name == "sgd" else loss).backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append(model)
    assert_equal(*found, "sparse")


def late_groups():
    """Parameters added before DDP wraps the model, and after."""
    for late in (False, True):
        model = make_model()
        optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
        wrapped = DistributedDataParallel(model) if late else None
        if late:
            share(wrapped, optimizer, half(0, RANK)[0])
            optimizer.step()
        model.frozen.requires_grad_(True)
        optimizer.add_param_group({"params": list(model.frozen.parameters()), "lr": 0.1})
        wrapped = wrapped or DistributedDataParallel(model)
        before = model.frozen.weight.clone()
        share(wrapped, optimizer, half(1, RANK)[0])
        optimizer.step()
        same_everywhere(model)
        assert not torch.equal(before, model.frozen.weight)


def joined():
    """Ranks with different numbers of batches, whose ends only DDP would notice."""
    model = make_model()
    before = weights(model)
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    wrapped = DistributedDataParallel(model)

    def train():
        with wrapped.join():
            share(wrapped, optimizer, half(0, RANK)[0])

    raises("same number of batches", train)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def flattened():
    """FSDP1 flattens parameters after the build; the first forward pass notices."""
    model = make_model()
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    whole = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    raises("FSDP1 reduces one flat gradient", share, whole, optimizer, half(0, RANK)[0])


def wrapped_before():
    """A refusal that changes nothing: in the plan if it can know, else in the first forward."""
    model = make_model()
    before = weights(model)
    wrapped = DistributedDataParallel(model)
    for whole in (wrapped, torch.nn.Sequential(wrapped)):
        plan = hub.plan("adamw_torch_layerwise", whole, lr=1e-2)
        assert plan.refused, plan
        assert "before hub.build" in str(plan.refusal)
        raises("before hub.build", hub.build, "lomo", whole, lr=1e-2)
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    raises("before hub.build", wrapped, batch(0))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    hub.detach(optimizer)
    part = hub.build("adamw_torch_layerwise", model.blocks[0], lr=1e-2)
    outer = DistributedDataParallel(model)
    raises("before hub.build", outer, batch(0))
    assert part


def detached():
    """DDP averages again, and nothing of hub is left on the model."""
    expected = in_one_process("adamw_torch_layerwise", take_detour=True)
    for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
        model, optimizer = subject("adamw_torch_layerwise").start()
        wrapped = DistributedDataParallel(model, **options)
        for step in range(STEPS):
            if step == 1:
                hub.detach(model)
                assert type(optimizer) is torch.optim.AdamW
                assert not hasattr(model, "_ddp_params_and_buffers_to_ignore")
                assert not any(module._forward_pre_hooks for module in model.modules())
            loss_of(wrapped, half(step, RANK)[0]).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert_equal(expected, model, options)
    model, optimizer = subject("lomo").start()
    copied = deepcopy(model)
    assert not getattr(copied, "_ddp_params_and_buffers_to_ignore", ())
    del optimizer
    gc.collect()
    assert not hasattr(model, "_ddp_params_and_buffers_to_ignore")
    assert not any(module._forward_pre_hooks for module in model.modules())


def memory():
    """At most a fifth of the gradients is there at once."""
    model = make_model()
    model.blocks.extend(deepcopy(block) for block in [*model.blocks] * 2)
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    wrapped = DistributedDataParallel(model)
    for _ in range(2):
        with GradientMeter(model.parameters()) as meter:
            share(wrapped, optimizer, half(0, RANK)[0])
        optimizer.step()
        assert meter.most <= 0.2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
        deadline = time.monotonic() + 60
        while meter.left() and time.monotonic() < deadline:
            # gloo's threads release a tensor a little after its all-reduce has returned (torch
            # 2.13, ProcessGroupGloo.cpp, `runLoop`)
            time.sleep(0.001)
        assert not meter.left()


def without_step():
    """LOMO's own API, which measures, skips steps that overflow anywhere, and never calls `step`.

    Only rank 0 contributes, so that fp16 gradients round as those of half its loss.
    """
    for name in ("lomo", "adalomo"):
        found = []
        for wrap in (alone, DistributedDataParallel):
            model = make_model(torch.float16)
            arguments = {"loss_scale": 2.0**10, "max_grad_norm": 1.0, "clipping": "exact"}
            optimizer = hub.build(name, model, lr=1e-3, **arguments)
            wrapped = wrap(model)
            for step in range(4):
                loss = loss_of(wrapped, half(step, 0)[0])
                overflows = step == 2
                if wrap is alone:
                    share_of_loss = 1e6 if overflows else 1 / RANKS
                elif RANK == 1:
                    share_of_loss = 1e6 if overflows else 0.0
                else:
                    share_of_loss = float(RANK == 0)
                optimizer.fused_backward(loss * share_of_loss)
                optimizer.zero_grad()
            scale = optimizer.param_groups[0]["loss_scale"]
            found.append((model, scale, hub.grad_norm(optimizer)))
            hub.detach(optimizer)
        (one, *expected), (several, *rest) = found
        assert expected == rest, (expected, rest)
        assert rest[0] == 2.0**9
        assert_equal(one, several, name)


def alone(model):
    """Take the other processes from the optimizer of a model, for a reference."""
    ((optimizer, _),) = optimizers_of(model.parameters())
    engine = optimizer.hub_engine
    engine._processes.remove()
    engine._processes = Alone("one process")
    return model


class Alone(OneProcess):
    def begin_pass(self):
        pass


def saved_on_rank_0():
    """A state dict of LOMO between two steps, which ends the first, needs no other process."""
    model = make_model()
    optimizer = hub.build("lomo", model, lr=1e-2)
    wrapped = DistributedDataParallel(model)
    for step in range(3):
        share(wrapped, optimizer, half(step, RANK)[0])
        if RANK == 0:
            optimizer.state_dict()
        optimizer.zero_grad()
    same_everywhere(model)
