"""One of several ranks that step in the backward pass: `python layerwise_ranks.py RANK RANKS STORE CASE`.

A case is a function below. Ranks 0 and 1 get a half of each batch; all others contribute zeros, so
that sums of gradients round as in one process.
"""

import gc
import os
import sys
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

import hub
from hub.measuring import GradientMeter
from hub.names.registry import default_registry
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import Subject

STEPS = 3
RANK, RANKS = int(sys.argv[1]), int(sys.argv[2])
BF16 = {"flash"}
"""Families whose fp32 weights are not what they are for."""


def subject(name):
    return Subject(name, "bf16" if name.split("_")[0] in BF16 else "fp32")


def names():
    """Return every name that steps in the backward pass."""
    registry = default_registry()
    for name in hub.list_optimizers():
        traits = registry.optimizer(name).traits
        if Trait.STEPS_IN_BACKWARD in traits:
            yield name
        elif Trait.PER_PARAMETER in traits:
            yield name + "_layerwise"


def half(step, rank, parts=1):
    """Return a rank's micro-batches of a step."""
    return batch(step, 4 * parts).chunk(2)[rank % 2].chunk(parts)


def in_one_process(name, parts=1, ranks=RANKS, before_step=None, take_detour=None, **arguments):
    """Return the model that one process trains with the mean of the gradients of the ranks."""
    one = subject(name)
    if one.spec.eager_spec is not None:
        one = replace(one, name=one.spec.eager_spec.name)
    model, optimizer = one.start(**arguments)
    if one.in_backward:
        hub.detach(optimizer)
    for step in range(STEPS):
        model.take_detour = step % 2 == 0 or bool(take_detour)
        sums = {}
        for rank in range(2):
            for tokens in half(step, rank, parts):
                (loss_of(model, tokens) / parts).backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    gradient, parameter.grad = parameter.grad * (1 / ranks), None
                    sums[parameter] = sums.get(parameter, 0) + gradient
        for parameter, gradient in sums.items():
            parameter.grad = gradient
        if before_step is not None:
            before_step(model, optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return model


def in_all(name, parts=1, wrap=DDP, sync=None, before_step=None, **arguments):
    """Return the model that all ranks train."""
    model, optimizer = subject(name).start(**arguments)
    if RANK:  # DDP begins with the weights of rank 0, and so does hub
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(RANK)
    wrapped = wrap(model)
    for step in range(STEPS):
        model.take_detour = step % 2 == 0
        for number, tokens in enumerate(half(step, RANK, parts)):
            with skipped_sync(wrapped, skip=sync is not None and not sync(number)):
                share(wrapped, optimizer, tokens, parts)
        if before_step is not None:
            before_step(model, optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return model


def skipped_sync(wrapped, *, skip):
    return wrapped.no_sync() if skip else nullcontext()


def share(wrapped, optimizer, tokens, parts=1):
    """Compute the gradients of this rank's micro-batch, which all but two ranks multiply by 0."""
    loss = loss_of(wrapped, tokens) / parts * float(RANK < 2)
    engine = optimizer.hub_engine
    if engine.settings.clipping == "exact":
        hub.grad_norm(optimizer, loss)
    loss.backward()


def assert_equal(expected, model, label):
    for (name, p), (_, q) in zip(
        expected.named_parameters(), model.named_parameters(), strict=True
    ):
        assert torch.equal(p, q), (label, RANK, name, (p - q).abs().max().item())


def every_name():
    """Every name under DDP, to the last bit."""
    for name in names():
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
        arguments = {"max_grad_norm": 0.05}
        norms.clear()
        clipping = clip_eagerly if name in ("lomo", "adalomo") else None
        expected = in_one_process(
            name,
            before_step=lambda *both, clip=clipping: (note(*both), clip and clip(*both)),
            **({} if clipping else arguments),
        )
        model = in_all(name, clipping="exact", before_step=note, **arguments)
        assert_equal(expected, model, name)
        assert norms[:STEPS] == norms[STEPS:], norms


def clip_eagerly(model, optimizer):
    torch.nn.utils.clip_grad_norm_(
        [p for group in optimizer.param_groups for p in group["params"]], 0.05
    )


def clipped_otherwise():
    previous = []

    def by_hand(mode):
        def clip(model, optimizer):
            parameters = [
                p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
            ]
            whole = torch.nn.utils.get_total_norm([p.grad for p in parameters]).item()
            for p in parameters:
                if mode == "value":
                    torch.nn.utils.clip_grad_value_([p], 1e-3)
                elif mode == "per_parameter" or not previous:
                    torch.nn.utils.clip_grad_norm_([p], 0.05)
                else:
                    p.grad.mul_(torch.clamp(0.05 / (torch.tensor(previous[-1]) + 1e-6), max=1.0))
            previous.append(whole)

        return clip

    for mode, arguments in (
        ("per_parameter", {"clipping": "per_parameter", "max_grad_norm": 0.05}),
        ("previous_norm", {"clipping": "previous_norm", "max_grad_norm": 0.05}),
        ("value", {"clip_grad_value": 1e-3}),
    ):
        previous.clear()
        expected = in_one_process("sgd_layerwise", before_step=by_hand(mode))
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
        model = in_all("adamw_torch_layerwise", wrap=lambda model, o=options: DDP(model, **o))
        assert_equal(expected, model, options)


def wrapped_before():
    """A refusal that changes nothing: in the plan if it can know, else in the first forward."""
    model = make_model()
    before = weights(model)
    wrapped = DDP(model)
    for whole in (wrapped, torch.nn.Sequential(wrapped)):
        plan = hub.plan("adamw_torch_layerwise", whole, lr=1e-2)
        assert plan.refused, plan
        assert "before hub.build" in str(plan.refusal)
        raises("before hub.build", lambda whole=whole: hub.build("lomo", whole, lr=1e-2))
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    raises("before hub.build", lambda: wrapped(batch(0)))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    hub.detach(optimizer)
    part = hub.build("adamw_torch_layerwise", model.blocks[0], lr=1e-2)
    outer = DDP(model)
    raises("before hub.build", lambda: outer(batch(0)))
    assert part


def raises(text, call):
    """Check that a call raises an error of hub with this text, and return it."""
    try:
        call()
    except hub.HubError as error:
        assert text in str(error), str(error)
        return error
    raise AssertionError(f"no error about {text}")


def other_order():
    """The same error on all ranks, for every way to differ; the next step works."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(4, 4, bias=False)
            self.second = torch.nn.Linear(4, 4, bias=False)
            self.third = torch.nn.Linear(4, 3, bias=False)
            self.small = torch.nn.Parameter(torch.ones(1))

        def forward(self, x, order):
            for name in order:
                x = x * self.small if name == "small" else getattr(self, name)(x)
            return x.square().sum()

    every = ("first", "second", "small")
    cases = [
        (every, ("second", "first", "small"), "second.weight", "first.weight"),
        (every, ("first", "small"), "second.weight", "first.weight"),
        (every, ("small",), "second.weight", "the end of the backward pass"),
        (every, (), "small", "optimizer.step()"),
        (("small", "first"), ("small", "first", "third"), "first.weight", "third.weight"),
    ]
    for wrap in (lambda model: model, DDP, lambda model: DDP(model, find_unused_parameters=True)):
        torch.manual_seed(0)
        model = Two()
        optimizer = hub.build("adamw_torch_layerwise", model, lr=0.1)
        wrapped = wrap(model)
        for orders in cases:
            before = weights(model)

            def train(order):
                loss = wrapped(torch.ones(1, 4), order)
                if order:
                    loss.backward()
                optimizer.step()

            error = raises("differ in the order", lambda orders=orders: train(orders[RANK]))
            assert isinstance(error, hub.UnsupportedError)
            assert f"rank 0 is at {orders[2]}, rank 1 at {orders[3]}" in error.what, error.what
            optimizer.step()
            same_everywhere(model)
            train(every)  # goes on
            same_everywhere(model)
            assert not torch.equal(model.first.weight, before["first.weight"])
        hub.detach(optimizer)


def same_everywhere(model):
    for name, p in model.named_parameters():
        other = p.detach().clone()
        dist.broadcast(other, 0)
        assert torch.equal(p, other), name


def failed_updates():
    """All ranks raise the same error at once, and the next step works."""
    for failing in ({0, 1}, {1}):
        model = make_model()
        optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
        wrapped = DDP(model)
        share(wrapped, optimizer, half(0, RANK)[0])
        optimizer.step()
        run = optimizer.hub_engine._step.run

        def fail(live, items, run=run, failing=failing, target=model.blocks[1].up.weight):
            if items[0].parameter is target and RANK in failing:
                raise ValueError("out of memory, say")
            run(live, items)

        optimizer.hub_engine._step.run = fail
        error = raises(
            "the update of blocks.1.up.weight failed: out of",
            lambda: share(wrapped, optimizer, half(1, RANK)[0]),
        )
        assert error.what.startswith(f"on rank {min(failing)}, "), error
        assert ("resume from a checkpoint" in error.fix) == (failing == {1})
        optimizer.hub_engine._step.run = run
        optimizer.step()
        share(wrapped, optimizer, half(2, RANK)[0])
        optimizer.step()


def one_rank_interrupted():
    """An exception on one rank reaches the others when it ends its step."""
    model = make_model()
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    wrapped = DDP(model)

    def fail(_):
        raise ValueError("of the user")

    if RANK == 1:
        handle = model.blocks[0].down.weight.register_hook(fail)
        try:
            share(wrapped, optimizer, half(0, RANK)[0])
        except ValueError:
            handle.remove()
        raises("rank 1 at optimizer.step()", optimizer.step)
    else:
        error = "rank 0 is at blocks.0.down.weight, rank 1 at optimizer.step()"
        raises(error, lambda: share(wrapped, optimizer, half(0, RANK)[0]))
    optimizer.step()
    same_everywhere(model)
    share(wrapped, optimizer, half(1, RANK)[0])
    optimizer.step()
    same_everywhere(model)


def detached():
    """DDP averages again, and nothing of hub is left on the model."""
    expected = in_one_process("adamw_torch_layerwise", take_detour=True)
    for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
        model, optimizer = subject("adamw_torch_layerwise").start()
        wrapped = DDP(model, **options)
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
    wrapped = DDP(model)
    for _ in range(2):
        with GradientMeter(model.parameters()) as meter:
            share(wrapped, optimizer, half(0, RANK)[0])
        optimizer.step()
        assert meter.most <= 0.2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
        assert sum(meter.left()) == 0


def without_step():
    """LOMO where nothing calls `step()`, in fp16 with a loss scale, and with upstream's API."""
    for name in ("lomo", "adalomo"):
        for scale, lr in ((2.0**10, 1e-3), (2.0**14, 1e-3)):
            found = []
            for ranks in (1, RANKS):
                model = make_model(torch.float16)
                optimizer = hub.build(
                    name, model, lr=lr, loss_scale=scale, max_grad_norm=1.0, clipping="exact"
                )
                if ranks == 1:
                    alone(optimizer)
                wrapped = DDP(model) if ranks > 1 else model
                for step in range(2 * STEPS):
                    losses = [
                        loss_of(wrapped, half(step, rank)[0])
                        for rank in ((0, 1) if ranks == 1 else (RANK,))
                    ]
                    optimizer.fused_backward(sum(losses) / len(losses))
                    optimizer.zero_grad()
                found.append(
                    (model, optimizer.param_groups[0]["loss_scale"], hub.grad_norm(optimizer))
                )
            (one, scale, norm), (several, *rest) = found
            print(
                name,
                scale,
                norm,
                rest,
                max(
                    (p - q).abs().max().item()
                    for p, q in zip(one.parameters(), several.parameters())
                ),
            )


def alone(optimizer):
    """Make an optimizer step as in one process."""
    from hub.running.layerwise.processes import OneProcess

    engine = optimizer.hub_engine
    engine._processes.remove()
    engine._processes = OneProcess("one")
    engine._processes.begin_pass = lambda: None


def saved_on_rank_0():
    """A state dict of LOMO between two steps, which ends the first, needs no other process."""
    model = make_model()
    optimizer = hub.build("lomo", model, lr=1e-2)
    wrapped = DDP(model)
    for step in range(3):
        share(wrapped, optimizer, half(step, RANK)[0])
        if RANK == 0:
            optimizer.state_dict()
        optimizer.zero_grad()
    same_everywhere(model)


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(sys.argv[3], RANKS)
    dist.init_process_group("gloo", store=store, rank=RANK, world_size=RANKS)
    for case in sys.argv[4:]:
        globals()[case]()
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do
