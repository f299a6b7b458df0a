"""The bitsandbytes names against bitsandbytes' own classes, built by hand."""

import inspect
import pickle
import subprocess
import sys
import warnings
from copy import deepcopy

import bitsandbytes.functional
import pytest
import torch
from bitsandbytes import cextension, optim
from bitsandbytes.optim.optimizer import GlobalOptimManager, Optimizer8bit
from hub_bitsandbytes import factory, hooks
from hub_bitsandbytes.hooks import SPECS
from hub_bitsandbytes.names import ADEMAMIX, LION, RMSPROP, ROWS
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.spec import BuildContext, Level, ParameterGroup, Precision
from hub.testing.comparing import assert_same, moved, through_a_file, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*(bf16|fp16):hub.HubWarning")
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

SPEC = {spec.name: spec for spec in SPECS}
EIGHT_BIT = [name for name, row in ROWS.items() if row.is_8bit]
PAGED = [name for name, row in ROWS.items() if row.paged]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
every_name = pytest.mark.parametrize("name", ROWS)
every_8bit_name = pytest.mark.parametrize("name", EIGHT_BIT)
every_paged_name = pytest.mark.parametrize("name", PAGED)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)

ARGUMENTS = {  # of each family: all away from their defaults
    "AdamW": {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6},
    "AdEMAMix": {"lr": 0.01, "betas": (0.8, 0.95, 0.99), "eps": 1e-6, "alpha": 2.0},
    "Lion": {"lr": 0.003, "betas": (0.8, 0.9)},
    "RMSprop": {"lr": 0.003, "alpha": 0.9, "eps": 1e-6},
}
SCHEDULED = {"t_alpha": 4, "t_beta3": 6}


class Model(nn.Module):
    """An embedding and two layers with 8-bit state, all of whole blocks, and small parameters."""

    def __init__(self, dtype=torch.float32):
        torch.manual_seed(0)
        super().__init__()
        self.embed = nn.Embedding(80, 64)
        self.up = nn.Linear(64, 128)
        self.norm = nn.LayerNorm(128)
        self.down = nn.Linear(128, 64)
        self.head = nn.Linear(64, 3)
        self.to(dtype)

    def forward(self, tokens):
        return self.head(self.down(torch.relu(self.norm(self.up(self.embed(tokens))))))


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """One thread, and a process-wide manager that no other test has written to."""
    torch.set_num_threads(1)
    monkeypatch.setattr(GlobalOptimManager, "_instance", None)


def gradients(model, step):
    """Fill in the gradients of one deterministic batch."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(80, (8, 4), generator=generator).to(model.head.weight.device)
    model.zero_grad()
    loss = (model(tokens).float() - 1).square().mean()
    loss.backward()
    return loss.item()


def train(model, optimizer, steps):
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


def arguments_of(name):
    return {**ARGUMENTS[ROWS[name].family.title], "weight_decay": 0.1}


def build(name, model, **arguments):
    return hub.build(name, model, **{**arguments_of(name), **arguments})


def by_hand(name, model, **arguments):
    """Upstream's class over the same groups."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return getattr(optim, ROWS[name].upstream)(groups, **{**arguments_of(name), **arguments})


def plainly(name):
    """Arguments with which hub's 8-bit names do what the bare classes do."""
    return {"embeddings_32bit": False} if ROWS[name].is_8bit else {}


@pytest.fixture
def _quiet_upstream():
    """Let the bare paged classes say what they say on CPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU")
        yield


quiet_upstream = pytest.mark.usefixtures("_quiet_upstream")


def bits(model, optimizer):
    """Return the names of the parameters whose state is in 8 bits."""
    return {
        name
        for name, p in model.named_parameters()
        if optimizer.state[p]["state1"].dtype == torch.uint8
    }


def resumed(name, saved, dtype=torch.float32, **arguments):
    """Return a fresh model and optimizer with saved states."""
    fresh = Model(dtype)
    fresh.load_state_dict(saved[0])
    optimizer = build(name, fresh, **arguments)
    optimizer.load_state_dict(saved[1])
    return fresh, optimizer


# Arguments ---------------------------------------------------------------------------------------

LEFT_OUT = {"params", "amsgrad", "optim_bits", "args", "is_paged", "momentum", "centered"}


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    theirs = {
        key: parameter.default
        for key, parameter in inspect.signature(
            getattr(optim, ROWS[name].upstream)
        ).parameters.items()
        if key not in LEFT_OUT
    }
    if ROWS[name].is_8bit:
        theirs["embeddings_32bit"] = True  # hub's own, named in the notes
        assert "embeddings_32bit" in " ".join(SPEC[name].notes)
    else:
        del theirs["min_8bit_size"]
    fields = SPEC[name].arguments.model_fields
    assert {key: field.default for key, field in fields.items()} == theirs
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize(
    ("upstream", "left_out"),
    [
        ("PagedAdamW32bit", {"amsgrad": True}),
        ("RMSprop", {"momentum": 0.5}),
        ("RMSprop8bit", {"momentum": 0.5}),
        ("RMSprop32bit", {"momentum": 0.5}),
        ("PagedAdamW32bit", {"min_8bit_size": 0}),
        ("AdEMAMix", {"min_8bit_size": 0}),
        ("Lion32bit", {"min_8bit_size": 0}),
        ("RMSprop", {"min_8bit_size": 0}),
    ],
)
@quiet_upstream
def test_what_is_left_out_does_nothing(upstream, left_out):
    """When this fails, bitsandbytes has learnt something to offer."""
    models = [Model(), Model()]
    for model, arguments in zip(models, [{}, left_out], strict=True):
        optimizer = getattr(optim, upstream)(model.parameters(), lr=0.01, **arguments)
        train(model, optimizer, range(4))
    assert_same(*models)


@pytest.mark.parametrize(
    ("upstream", "left_out", "error"),
    [
        ("AdamW8bit", {"amsgrad": True}, ValueError),
        ("PagedAdamW8bit", {"amsgrad": True}, ValueError),
        ("RMSprop", {"centered": True}, NotImplementedError),
        ("RMSprop8bit", {"alpha": 0.0}, NotImplementedError),
    ],
)
def test_what_else_is_left_out_is_refused_upstream(upstream, left_out, error):
    with pytest.raises(error):
        getattr(optim, upstream)(Model().parameters(), **left_out)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("adamw_8bit", {"amsgrad": True}, "no argument 'amsgrad'"),
        ("paged_adamw_32bit", {"min_8bit_size": 0}, "no argument 'min_8bit_size'"),
        ("rmsprop_bnb", {"momentum": 0.5}, "no argument 'momentum'"),
        ("rmsprop_bnb", {"optim_bits": 8}, "no argument 'optim_bits'"),
        ("adamw_8bit", {"min_8bit_size": -1}, "greater than or equal to 0"),
        ("adamw_8bit", {"embeddings_32bit": "perhaps"}, "boolean"),
        ("adamw_8bit", {"betas": (0.9, 1.0)}, "less than 1"),
        ("rmsprop_bnb", {"alpha": 0.0}, "greater than 0"),
        ("rmsprop_bnb_8bit", {"weight_decay": -0.1}, "greater than or equal to 0"),
        ("lion_8bit", {"eps": 1e-8}, "no argument 'eps'"),
        ("ademamix", {"betas": (0.9,)}, "betas"),
        ("ademamix", {"t_alpha": 0}, "greater than 0"),
        ("ademamix", {"t_beta3": 5, "betas": (0.0, 0.999, 0.9999)}, "takes logarithms"),
        ("ademamix_8bit", {"t_beta3": 5, "betas": (0.9, 0.999, 0.0)}, "takes logarithms"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build(name, Model(), **arguments)


def test_the_bare_schedule_of_beta3_fails_at_zero():
    optimizer = optim.AdEMAMix(Model().parameters(), betas=(0.0, 0.9, 0.99), t_beta3=5)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(80, 64)
    with pytest.raises(ValueError, match="math domain"):
        optimizer.step()


@pytest.mark.parametrize("given", ["defaults", "optim_args", "param_rules"])
def test_two_betas_leave_ademamix_its_third(given):
    pair = (0.8, 0.95)
    call = {
        "defaults": {"defaults": {"betas": pair}},
        "optim_args": {"optim_args": "betas=(0.8, 0.95)"},
        "param_rules": {"param_rules": {"embed": {"betas": pair}}},
    }[given]
    optimizer = hub.build("ademamix", Model(), **call)
    assert optimizer.param_groups[-1]["betas"] == (0.8, 0.95, 0.9999)


def test_the_bare_class_takes_two_betas_for_a_third_of_zero():
    two, three = Model(), Model()
    train(two, optim.AdEMAMix(two.parameters(), betas=(0.8, 0.95)), range(3))
    train(three, optim.AdEMAMix(three.parameters(), betas=(0.8, 0.95, 0.0)), range(3))
    assert_same(two, three)


# The update --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_name
@quiet_upstream
def test_it_is_the_upstream_optimizer(name, dtype):
    ours, theirs = Model(dtype), Model(dtype)
    optimizer = build(name, ours, **plainly(name))
    reference = by_hand(name, theirs)
    assert isinstance(optimizer, type(reference))
    assert type(optimizer).__name__ == type(reference).__name__
    assert_same(train(ours, optimizer, range(6)), train(theirs, reference, range(6)))
    assert bits(ours, optimizer) == bits(theirs, reference)


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].family is ADEMAMIX])
@both_dtypes
@quiet_upstream
def test_schedules_of_ademamix_are_upstreams(name, dtype):
    ours, theirs, constant = Model(dtype), Model(dtype), Model(dtype)
    train(ours, build(name, ours, **SCHEDULED, **plainly(name)), range(8))
    assert_same(ours, train(theirs, by_hand(name, theirs, **SCHEDULED), range(8)))
    train(constant, build(name, constant, **plainly(name)), range(8))
    assert moved(constant, weights(ours))


@every_8bit_name
@quiet_upstream
def test_embeddings_keep_32_bit_state_as_upstream_would_have_it(name):
    ours, theirs = Model(), Model()
    optimizer, reference = build(name, ours), by_hand(name, theirs)
    reference.mng.override_config(theirs.embed.weight, "optim_bits", 32)
    assert_same(train(ours, optimizer, range(4)), train(theirs, reference, range(4)))
    assert bits(ours, optimizer) == {"up.weight", "down.weight"}


@every_8bit_name
def test_min_8bit_size_is_reachable(name):
    model = Model()
    optimizer = build(name, model, min_8bit_size=9000, embeddings_32bit=False)
    train(model, optimizer, [0])
    assert bits(model, optimizer) == set()
    model = Model()
    optimizer = build(name, model, min_8bit_size=0, embeddings_32bit=False)
    train(model, optimizer, [0])
    fill_blocks = {"embed.weight", "up.weight", "down.weight"}
    everything = {key for key, _ in model.named_parameters()}
    expected = fill_blocks if ROWS[name].family is ADEMAMIX else everything
    assert bits(model, optimizer) == expected


def test_a_tied_and_a_late_embedding_keep_32_bit_state_too():
    model = Model()
    model.unembed = nn.Linear(64, 80, bias=False)
    model.unembed.weight = model.embed.weight
    model.late = nn.Embedding(80, 64).requires_grad_(requires_grad=False)
    optimizer = build("adamw_8bit", model)
    model.late.requires_grad_(requires_grad=True)
    optimizer.add_param_group({"params": [model.late.weight], "param_names": ["late.weight"]})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert bits(model, optimizer) == {"up.weight", "down.weight"}


def test_ademamix_keeps_32_bit_state_where_blocks_are_not_full():
    """Where the CUDA kernel of bitsandbytes 0.50.2 puts the scales of the blocks of each average.

    Read in its source and in the code of `libbitsandbytes_cuda118.so`, not run.
    """
    elements = 64 * 70
    fast = {i // hooks.BLOCK for i in range(0, elements, hooks.BLOCK)}
    slow = {(elements + i) // hooks.BLOCK for i in range(0, elements, hooks.BLOCK)}
    assert fast & slow
    model = nn.Linear(64, 70)
    optimizer = hub.build("ademamix_8bit", model)
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    assert bits(model, optimizer) == set()


@pytest.mark.parametrize("upstream", ["AdEMAMix32bit", "PagedAdEMAMix32bit"])
@quiet_upstream
def test_the_bare_32bit_classes_of_ademamix_are_broken(upstream):
    """When this fails, the rows may name these classes."""
    model = Model()
    with pytest.raises(RuntimeError, match="shape"):
        train(model, getattr(optim, upstream)(model.parameters()), [0])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@every_name
def test_half_precision_weights_learn_as_fp32_ones_do(name, dtype):
    def loss_after(model):
        train(model, build(name, model), range(20))
        return gradients(model, 99)

    expected = loss_after(Model())
    assert expected < 0.6 * gradients(Model(), 99)
    assert loss_after(Model(dtype)) == pytest.approx(expected, rel=0.15)


@every_name
def test_fp64_is_refused(name):
    with pytest.raises(hub.PrecisionError, match="fp64"):
        hub.build(name, Model(torch.float64))


def test_the_bare_classes_round_fp64_weights_to_fp32():
    model = Model(torch.float64)
    train(model, optim.AdamW(model.parameters()), range(2))
    assert torch.equal(model.up.weight, model.up.weight.float().double())


@every_name
def test_decay_reaches_exactly_the_decayed_parameters(name):
    model = Model()
    before = weights(model)
    optimizer = build(name, model, weight_decay=0.5, **plainly(name))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {"embed.weight", "up.weight", "down.weight", "head.weight"}
    assert moved(model, before) == decayed
    if ROWS[name].family is not RMSPROP:  # its decay is a gradient, which it normalises
        factor = 1 - ARGUMENTS[ROWS[name].family.title]["lr"] * 0.5
        for key in decayed:
            torch.testing.assert_close(model.get_parameter(key).data, before[key] * factor)


def test_the_decay_of_rmsprop_is_torchs():
    ours, theirs = Model(), Model()
    first = hub.build("rmsprop_bnb", ours, lr=0.003, weight_decay=0.5)
    second = hub.build("rmsprop", theirs, lr=0.003, weight_decay=0.5)
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    for step in range(5):
        gradients(ours, step)
        for parameter, other in pairs:  # the same, as the sum of a matrix product is not elsewhere
            other.grad = parameter.grad.clone()
        first.step()
        second.step()
    for parameter, other in pairs:
        # Each of five steps rounds the weight once, and an update of 0.03 at most some five times.
        torch.testing.assert_close(parameter, other, rtol=5 * 2**-24, atol=5 * 5 * 0.03 * 2**-24)


@every_name
def test_arguments_reach_every_group(name):
    own = ARGUMENTS[ROWS[name].family.title]
    expected = {key: value for key, value in own.items() if ROWS[name].family is not RMSPROP}
    optimizer = build(name, Model())
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]
    for group in optimizer.param_groups:
        assert {key: group[key] for key in expected} == expected
        if ROWS[name].family is RMSPROP:
            assert (group["lr"], group["betas"], group["eps"]) == (0.003, (0.9, 0), 1e-6)


RULES = {
    "AdamW": {"lr": 0.02, "weight_decay": 0.3, "betas": (0.7, 0.8), "eps": 1e-4},
    "AdEMAMix": {"betas": (0.7, 0.8, 0.9), "alpha": 1.0, "t_alpha": 3, "t_beta3": 3, "eps": 1e-4},
    "Lion": {"lr": 0.01, "weight_decay": 0.3, "betas": (0.7, 0.8)},
    "RMSprop": {"lr": 0.01, "weight_decay": 0.3, "eps": 1e-4},
}


@pytest.mark.parametrize(
    ("name", "key"), [(n, key) for n in ROWS for key in sorted(SPEC[n].per_group)]
)
def test_what_may_differ_per_group_does(name, key):
    value = {"lr": 0.02, "weight_decay": 0.3, **RULES[ROWS[name].family.title]}[key]
    plain, ruled = Model(), Model()
    train(plain, build(name, plain, **plainly(name)), range(4))
    rules = {"up": {key: value}}
    train(ruled, build(name, ruled, param_rules=rules, **plainly(name)), range(4))
    assert "up.weight" in moved(ruled, weights(plain))


@every_name
def test_the_next_update_uses_the_learning_rate_of_the_group(name):
    model = Model()
    optimizer = build(name, model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 1))
    before = weights(model)
    for step in range(2):
        assert all(group["lr"] == 0 for group in optimizer.param_groups)
        train(model, optimizer, [step])
        schedule.step()
    assert not moved(model, before)
    train(model, optimizer, [2])
    assert moved(model, before)


@every_name
def test_a_closure_may_call_backward(name):
    model, other = Model(), Model()
    optimizer = build(name, model)
    assert optimizer.step(lambda: gradients(model, 0)) == gradients(Model(), 0)
    assert_same(model, train(other, build(name, other), [0]))


@every_name
def test_frozen_parameters_never_move_and_late_ones_join(name):
    model = Model()
    model.up.requires_grad_(requires_grad=False)
    before = weights(model)
    optimizer = build(name, model)
    train(model, optimizer, range(2))
    assert moved(model, before) == {n for n, _ in model.named_parameters() if "up." not in n}
    model.up.requires_grad_(requires_grad=True)
    optimizer.add_param_group(
        {"params": list(model.up.parameters()), "param_names": ["up.weight", "up.bias"]}
    )
    train(model, optimizer, range(2, 4))
    assert moved(model, before) == set(before)
    _, again = resumed_late(name, model, optimizer)
    assert len(again.param_groups) == len(optimizer.param_groups)


def resumed_late(name, model, optimizer):
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = Model()
    fresh.up.requires_grad_(requires_grad=False)
    fresh.load_state_dict(saved[0])
    again = build(name, fresh)
    again.add_param_group(
        {"params": list(fresh.up.parameters()), "param_names": ["up.weight", "up.bias"]}
    )
    again.load_state_dict(saved[1])
    return fresh, again


@every_name
def test_a_parameter_without_a_gradient_waits(name):
    model = Model()
    optimizer = build(name, model)
    before = weights(model)
    for step in range(3):
        gradients(model, step)
        model.up.weight.grad = None
        optimizer.step()
    assert torch.equal(model.up.weight, before["up.weight"])
    train(model, optimizer, [3])
    assert not torch.equal(model.up.weight, before["up.weight"])


# Storage -----------------------------------------------------------------------------------------


def transposed(model):
    """Store two weights, one of them with 8-bit state, by columns."""
    for layer in (model.up, model.head):
        layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    return model


def step_both(straight, other, optimizers, step):
    gradients(straight, step)
    for parameter, like in zip(other.parameters(), straight.parameters(), strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(like.grad)
    for optimizer in optimizers:
        optimizer.step()


@both_dtypes
@every_name
def test_weights_that_are_not_contiguous_stay_where_and_as_they_are(name, dtype):
    straight, other = Model(dtype), transposed(Model(dtype))
    place = {key: (p.data_ptr(), p.stride()) for key, p in other.named_parameters()}
    optimizers = [build(name, model) for model in (straight, other)]
    for step in range(3):
        step_both(straight, other, optimizers, step)
    assert {key: (p.data_ptr(), p.stride()) for key, p in other.named_parameters()} == place
    assert_same(straight, other)
    assert set(optimizers[1].state) == set(other.parameters())
    for state in optimizers[1].state.values():  # CUDA kernels know no strides
        assert all(v.is_contiguous() for v in state.values() if isinstance(v, torch.Tensor))
    saved = through_a_file([other.state_dict(), optimizers[1].state_dict()])
    fresh, again = resumed(name, saved, dtype)  # contiguous now
    step_both(straight, other, optimizers, 3)
    assert_same(train(fresh, again, [3]), straight)


def test_gradients_that_are_not_contiguous_stay_what_they_are():
    model, other = Model(), Model()
    gradients(model, 0)
    gradients(other, 0)
    grad = model.up.weight.grad = model.up.weight.grad.t().contiguous().t()
    place = model.up.weight.data_ptr()
    build("adamw_8bit", model).step()
    build("adamw_8bit", other).step()
    assert model.up.weight.grad is grad
    assert model.up.weight.data_ptr() == place
    assert_same(model, other)


def test_the_bare_classes_move_weights_that_are_not_contiguous():
    model = transposed(Model())
    place = model.up.weight.data_ptr()
    train(model, optim.AdamW8bit(model.parameters()), [0])
    assert model.up.weight.data_ptr() != place


def test_a_failing_kernel_leaves_no_stand_in(monkeypatch):
    model = transposed(Model())
    optimizer = build("adamw_8bit", model)
    gradients(model, 0)

    def fail(*_, **__):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(bitsandbytes.functional, "optimizer_update_8bit_blockwise", fail)
    with pytest.raises(RuntimeError, match="no kernel"):
        optimizer.step()
    assert set(optimizer.state) <= set(model.parameters())


@every_paged_name
def test_paged_names_run_on_cpu_without_a_word(name):
    model = nn.Linear(400, 300)
    optimizer = build(name, model)
    model(torch.ones(1, 400)).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    plan = hub.plan(name, model)
    assert [f.level for f in plan.findings if "ordinary memory" in f.what] == [Level.NOTE]


@pytest.mark.parametrize("name", [n for n in ROWS if not ROWS[n].paged])
def test_other_names_say_nothing_about_paging(name):
    assert not hub.plan(name, Model()).findings


@pytest.mark.parametrize("upstream", [ROWS[name].upstream for name in PAGED])
def test_the_bare_paged_classes_warn_or_fail_on_cpu(upstream):
    model = nn.Linear(400, 300)
    optimizer = getattr(optim, upstream)(model.parameters())
    model(torch.ones(1, 400)).sum().backward()
    with pytest.raises((UserWarning, RuntimeError, NotImplementedError, AssertionError)):
        optimizer.step()


# Checkpoints -------------------------------------------------------------------------------------


@both_dtypes
@every_name
def test_it_resumes_exactly(name, dtype):
    extra = SCHEDULED if ROWS[name].family is ADEMAMIX else {}
    straight = Model(dtype)
    train(straight, build(name, straight, **extra), range(9))
    model = Model(dtype)
    optimizer = build(name, model, **extra)
    for steps in [range(3), range(3, 6), range(6, 9)]:
        train(model, optimizer, steps)
        saved = through_a_file([model.state_dict(), optimizer.state_dict()])
        model, optimizer = resumed(name, saved, dtype, **extra)
    assert_same(model, straight)


@every_name
def test_a_distributed_checkpoint_resumes_exactly(name):
    straight = Model()
    train(straight, build(name, straight), range(8))
    model = Model()
    optimizer = build(name, model)
    train(model, optimizer, range(4))
    saved = deepcopy(get_optimizer_state_dict(model, optimizer))
    fresh = Model()
    fresh.load_state_dict(model.state_dict())
    again = build(name, fresh)
    set_optimizer_state_dict(fresh, again, saved)
    assert_same(train(fresh, again, range(4, 8)), straight)


@every_name
@quiet_upstream
def test_checkpoints_go_to_and_from_the_bare_class(name):
    straight = Model()
    train(straight, by_hand(name, straight), range(6))
    model = Model()
    bare = by_hand(name, model)
    train(model, bare, range(2))
    saved = through_a_file([model.state_dict(), bare.state_dict()])
    fresh, optimizer = resumed(name, saved, **plainly(name))
    train(fresh, optimizer, range(2, 4))
    saved = through_a_file([fresh.state_dict(), optimizer.state_dict()])
    last = Model()
    last.load_state_dict(saved[0])
    bare = by_hand(name, last)
    bare.load_state_dict(saved[1])
    assert_same(train(last, bare, range(4, 6)), straight)


@pytest.mark.parametrize(
    ("saved_by", "loaded_by"),
    [(n, row.shares_state_with) for n, row in ROWS.items() if row.shares_state_with],
)
def test_names_with_one_kind_of_state_share_checkpoints(saved_by, loaded_by):
    straight, model = Model(), Model()
    train(straight, build(loaded_by, straight), range(6))
    optimizer = build(saved_by, model)
    train(model, optimizer, range(3))
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    assert_same(train(*resumed(loaded_by, saved), range(3, 6)), straight)


def foreign(kind):
    """Return the state dict of another optimizer, as its own class saves it."""
    model = Model()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim < 2]},
    ]
    optimizer = (
        torch.optim.AdamW(groups) if kind == "torch" else getattr(optim, kind)(groups, lr=0.01)
    )
    train(model, optimizer, [0])
    return optimizer.state_dict()


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "says"),
    [
        ("torch", "adamw_8bit", {}, "exp_avg"),
        ("torch", "lion_32bit", {}, "exp_avg"),
        ("AdamW8bit", "paged_adamw_32bit", {}, "8-bit state, where 32-bit"),
        ("AdamW", "adamw_8bit", {}, "32-bit state, where 8-bit"),
        ("AdamW8bit", "adamw_8bit", {}, "8-bit state, where 32-bit"),  # of the embedding
        ("AdamW8bit", "adamw_8bit", {"min_8bit_size": 6000}, "8-bit state, where 32-bit"),
        ("Lion8bit", "adamw_8bit", {"embeddings_32bit": False}, "state1, state2 is needed"),
        ("AdamW8bit", "lion_8bit", {"embeddings_32bit": False}, "where state1 is needed"),
        ("AdamW", "ademamix", {}, r"betas=\(0.9, 0.999\) of a group .* takes 3 values"),
        ("AdEMAMix", "paged_adamw_32bit", {}, r"betas=.* of a group .* takes 2 values"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(kind, name, arguments, says):
    model = Model()
    optimizer = build(name, model, **arguments)
    train(model, optimizer, [0])
    before = deepcopy(optimizer.state_dict())
    with pytest.raises(hub.CheckpointError, match=says) as refused:
        optimizer.load_state_dict(foreign(kind))
    assert "weight" in refused.value.where or "group" in says
    assert torch.equal(
        factory.unwrapped(optimizer.state_dict()["state"][1])["state1"],
        factory.unwrapped(before["state"][1])["state1"],
    )


def test_the_bare_classes_take_or_break_on_checkpoints_of_another_kind():
    with pytest.raises(KeyError, match="state1"):
        load_and_step(optim.AdamW, "torch")
    _, optimizer = load_and_step(optim.AdamW, "AdamW8bit")
    assert {s["state1"].dtype for s in optimizer.state.values()} == {torch.uint8, torch.float32}


def load_and_step(upstream, kind):
    model = Model()
    optimizer = upstream(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim < 2]},
        ]
    )
    optimizer.load_state_dict(foreign(kind))
    return train(model, optimizer, [1]), optimizer


def test_other_bits_are_refused_by_argument():
    model = Model()
    optimizer = build("adamw_8bit", model)
    train(model, optimizer, [0])
    other = build("adamw_8bit", Model(), embeddings_32bit=False)
    with pytest.raises(hub.CheckpointError, match="embeddings_32bit"):
        other.load_state_dict(optimizer.state_dict())


@every_name
def test_a_copy_steps_on_its_own(name):
    straight, model = Model(), Model()
    train(straight, build(name, straight), range(6))
    optimizer = build(name, model)
    train(model, optimizer, range(3))
    hub.detach(optimizer)
    for copied in (deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        other, copy = copied((model, optimizer))
        assert type(copy) is type(optimizer)
        assert copy.mng is not optimizer.mng
        assert_same(train(other, copy, range(3, 6)), straight)
        assert bits(other, copy) == bits(model, optimizer)
    assert_same(train(model, optimizer, range(3, 6)), straight)


def test_a_copy_of_the_bare_class_does_not_step():
    """When this fails, `Mended.__getstate__` is not needed any more."""
    model = Model()
    other, copy = deepcopy((model, optim.AdamW8bit(model.parameters())))
    with pytest.raises(AttributeError, match="initialized"):
        train(other, copy, [0])


# Paging, with the part of the GPU played by ordinary memory --------------------------------------


def mark(tensor):
    tensor.is_paged, tensor.page_deviceid = True, 0
    return tensor


@pytest.fixture
def paging(monkeypatch):
    """Have upstream hand out marked buffers on CPU as it does on CUDA; return those it did."""
    pages = []

    def buffer(self, p, dtype=torch.float32):
        pages.append(mark(torch.zeros(p.shape, dtype=dtype)))
        self.page_mng.paged_tensors.append(pages[-1])
        return pages[-1]

    def double(_, p, dtype=torch.float32):
        pages.append(mark(torch.zeros((2, *p.shape), dtype=dtype)))
        return pages[-1]

    monkeypatch.setattr(Optimizer8bit, "get_state_buffer", buffer)
    monkeypatch.setattr(optim.AdEMAMix, "_get_state_double_buffer", double)
    monkeypatch.setattr(factory.Fixes, "_is_paged_on", lambda self, _: self.is_paged)
    monkeypatch.setattr(bitsandbytes.functional, "prefetch_tensor", lambda _: None)
    return pages


def states(optimizer):
    return [
        state[key] for state in optimizer.state.values() for key in factory.BUFFERS if key in state
    ]


def is_among(tensor, others):
    return any(tensor is other for other in others)


@every_paged_name
def test_loaded_and_copied_state_is_paged_again(name, paging):
    straight, model = Model(), Model()
    train(straight, build(name, straight), range(6))
    optimizer = build(name, model)
    train(model, optimizer, range(3))
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    hub.detach(optimizer)
    for fresh, again in (resumed(name, saved), deepcopy((model, optimizer))):
        assert all(is_among(state, paging) for state in states(again))
        assert_same(train(fresh, again, range(3, 6)), straight)


@every_paged_name
@pytest.mark.usefixtures("paging")
def test_saved_state_does_not_say_that_it_is_paged(name):
    model = Model()
    optimizer = build(name, model)
    train(model, optimizer, [0])
    assert all(state.is_paged for state in states(optimizer))
    saved = through_a_file(optimizer.state_dict())
    for state in saved["state"].values():
        for value in factory.unwrapped(state).values():
            assert not hasattr(value, "is_paged")
    assert all(state.is_paged for state in states(optimizer))


@every_paged_name
def test_paged_state_that_upstream_saved_runs_on_cpu(name):
    """A checkpoint of the bare class from a GPU, with its marks."""
    model = Model()
    optimizer = build(name, model)
    train(model, optimizer, [0])
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        wrapped = state[Optimizer8bit._FSDP_WRAPPED_QUANT_STATE_KEY]
        for key in wrapped:
            wrapped[key] = mark(wrapped[key].clone())
    _, again = resumed(name, through_a_file([model.state_dict(), saved]))
    assert not any(hasattr(state, "is_paged") for state in states(again))


def test_the_bare_class_takes_the_mark_for_the_thing():
    """When this fails, `Mended.state_dict` is not needed any more."""
    model = nn.Linear(64, 64)
    optimizer = optim.PagedAdamW8bit(model.parameters())
    optimizer.load_state_dict(
        {
            "state": {0: {"step": 1, "state1": mark(torch.zeros(64, 64, dtype=torch.uint8))}},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
    model(torch.ones(1, 64)).sum().backward()
    with pytest.raises(RuntimeError, match="cprefetch"):
        optimizer.step()


@pytest.mark.usefixtures("paging")
def test_buffers_that_nobody_uses_are_let_go():
    model = Model()
    optimizer = build("paged_adamw_8bit", model)
    train(model, optimizer, [0])
    for _ in range(3):
        optimizer.load_state_dict(optimizer.state_dict())
    kept = optimizer.page_mng.paged_tensors
    assert len(kept) == len(states(optimizer))
    assert all(is_among(state, kept) for state in states(optimizer))


# One optimizer among others ----------------------------------------------------------------------


def overridden_neighbour():
    """A bare optimizer whose first parameter is overridden, as users of bitsandbytes do it."""
    neighbour = nn.Linear(64, 64)
    manager = GlobalOptimManager.get_instance()
    manager.register_module_override(neighbour, "weight", {"optim_bits": 32})
    optimizer = optim.AdamW8bit(neighbour.parameters())
    neighbour(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    return neighbour


def test_overrides_of_other_optimizers_do_not_leak_in():
    neighbour = overridden_neighbour()
    model = Model()
    optimizer = build("adamw_8bit", model, embeddings_32bit=False)
    train(model, optimizer, [0])
    assert "embed.weight" in bits(model, optimizer)
    del neighbour


def test_the_bare_classes_apply_the_overrides_of_others():
    """When this fails, an own manager is not needed any more."""
    neighbour = overridden_neighbour()
    model = Model()
    optimizer = by_hand("adamw_8bit", model)
    train(model, optimizer, [0])
    assert "embed.weight" not in bits(model, optimizer)
    del neighbour


@every_8bit_name
@quiet_upstream
def test_nothing_is_registered_for_others(name):
    model, other = Model(), Model()
    train(model, build(name, model), range(2))
    manager = GlobalOptimManager.get_instance()
    assert not manager.pid2config
    assert not manager.index2config
    assert not manager.module_weight_config_triple
    bare = by_hand(name, other)
    train(other, bare, [0])
    assert "embed.weight" in bits(other, bare)


# Building ----------------------------------------------------------------------------------------


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_building_prints_and_leaves_nothing():
    done = run(
        "import logging, os, random, warnings, torch, hub\n"
        "def picture():\n"
        "    seen = logging.getLogger('bitsandbytes.backends.cpu.ops')\n"
        "    return [torch.get_rng_state().tolist(), random.getstate(), dict(os.environ),\n"
        "            list(warnings.filters), logging.root.level, list(logging.root.handlers),\n"
        "            list(seen.filters), seen.level, seen.disabled]\n"
        "model = torch.nn.Linear(4, 4)\n"
        "hub.build('adamw_torch', model)\n"  # imports torch._dynamo, which leaves two traces
        "before = picture()\n"
        "hub.build('adamw_8bit', model)\n"
        "assert before == picture()\n"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_hooks_import_neither_torch_nor_bitsandbytes():
    run(
        "import sys, hub_bitsandbytes.hooks\n"
        "assert not {'torch', 'bitsandbytes', 'hub_bitsandbytes.factory'} & set(sys.modules)"
    )


def test_sharded_parameters_are_refused():
    model = Model()
    model.up.weight.device_mesh = "as a DTensor has it"
    with pytest.raises(hub.UnsupportedError, match="FSDP2") as refused:
        build("lion_8bit", model)
    assert refused.value.where == "up.weight"
    assert refused.value.fix


def test_parameters_sharded_after_building_are_refused():
    model = Model()
    optimizer = build("lion_8bit", model)
    model.up.weight.device_mesh = "as a DTensor has it"
    with pytest.raises(hub.UnsupportedError, match="sharded after") as refused:
        train(model, optimizer, [0])
    assert refused.value.where == "up.weight"


def test_sparse_gradients_are_refused():
    model = Model()
    model.embed.sparse = True
    with pytest.raises(hub.UnsupportedError, match="sparse") as refused:
        build("adamw_8bit", model)
    assert refused.value.where == "embed"
    model.embed.requires_grad_(requires_grad=False)
    build("adamw_8bit", model)


# CUDA, from what bitsandbytes' source says -------------------------------------------------------


class OnCuda:
    """As much of a CUDA parameter as the findings look at."""

    def __init__(self, dtype, elements):
        self.device = torch.device("cuda", 0)
        self.dtype = dtype
        self.elements = elements

    def numel(self):
        return self.elements


def findings(name, dtype, elements, decay=None, **arguments):
    overrides = {} if decay is None else {"weight_decay": decay}
    group = ParameterGroup(
        name="all", parameters=(("weight", OnCuda(dtype, elements)),), overrides=overrides
    )
    context = BuildContext(
        model=nn.Module(),
        groups=(group,),
        precision=Precision(mode="fp32", dtypes=("fp32",), devices=("cuda",)),
    )
    optim_args = SPEC[name].arguments(**arguments)
    return list(hooks.hub_validate_precision(name=name, optim_args=optim_args, context=context))


LARGE, SMALL = 10_000, 10
FP32, BF16, FP16 = DTYPES


@pytest.mark.parametrize(
    ("name", "dtype", "elements", "more", "says"),
    [
        ("rmsprop_bnb", BF16, LARGE, {}, "no RMSprop kernel for bf16"),
        ("rmsprop_bnb_32bit", BF16, SMALL, {}, "no RMSprop kernel for bf16"),
        ("rmsprop_bnb_8bit", BF16, SMALL, {}, "no RMSprop kernel for bf16"),
        ("rmsprop_bnb_8bit", BF16, LARGE, {}, None),
        ("rmsprop_bnb_8bit", BF16, SMALL, {"min_8bit_size": 0}, None),
        ("rmsprop_bnb", FP32, LARGE, {"weight_decay": 0.1}, None),
        ("rmsprop_bnb", FP16, LARGE, {}, None),
        ("rmsprop_bnb_8bit", FP32, LARGE, {"weight_decay": 0.1}, "out of the update"),
        ("rmsprop_bnb_8bit", FP32, LARGE, {"weight_decay": 0.1, "decay": 0.0}, None),
        ("rmsprop_bnb_8bit", FP32, LARGE, {"decay": 0.1}, "out of the update"),
        ("rmsprop_bnb_8bit", FP32, SMALL, {"weight_decay": 0.1}, None),
        ("lion_8bit", BF16, SMALL, {"weight_decay": 0.1}, None),
        ("adamw_8bit", FP32, 2**31, {}, "2147483648 elements"),
        ("paged_lion_32bit", FP32, 2**31 - 1, {}, None),
    ],
)
def test_what_the_cuda_kernels_cannot_do_is_refused(name, dtype, elements, more, says, monkeypatch):
    monkeypatch.setattr(cextension.lib, "compiled_with_cuda", True)
    found = findings(name, dtype, elements, **more)
    assert all(f.level is Level.REFUSE and f.fix for f in found)
    if says is None:
        assert not found
    else:
        assert says in found[0].what


def test_a_bitsandbytes_without_cuda_is_refused_when_building(monkeypatch):
    monkeypatch.setattr(cextension.lib, "compiled_with_cuda", False)
    (found,) = findings("adamw_8bit", FP32, SMALL)
    assert found.error is hub.UnsupportedError
    assert "no CUDA kernels" in found.what


@pytest.mark.parametrize("name", [pytest.param(name, marks=gpu) for name in ROWS])
def test_it_is_the_upstream_optimizer_on_cuda(name):
    decay = 0.0 if name == "rmsprop_bnb_8bit" else 0.1
    ours, theirs = Model().cuda(), Model().cuda()
    optimizer = build(name, ours, weight_decay=decay, **plainly(name))
    reference = by_hand(name, theirs, weight_decay=decay)
    assert_same(train(ours, optimizer, range(4)), train(theirs, reference, range(4)))


@pytest.mark.parametrize("name", [pytest.param(name, marks=gpu) for name in PAGED])
def test_state_is_paged_again_on_cuda(name):
    def batch(model, step):
        generator = torch.Generator().manual_seed(step)
        model.zero_grad()
        model(torch.randn(4, 400, generator=generator).cuda()).square().mean().backward()

    def large():
        torch.manual_seed(0)
        return nn.Linear(400, 512).cuda()

    def steps(model, optimizer, numbers):
        for step in numbers:
            batch(model, step)
            optimizer.step()
        return model

    straight, model = large(), large()
    steps(straight, build(name, straight), range(6))
    optimizer = build(name, model)
    steps(model, optimizer, range(3))
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = large()
    fresh.load_state_dict(saved[0])
    again = build(name, fresh)
    again.load_state_dict(saved[1])
    assert again.state[fresh.weight]["state1"].is_paged
    assert_same(steps(fresh, again, range(3, 6)), straight)


def test_every_lion_has_lions_betas():
    assert {SPEC[n].arguments().betas for n, row in ROWS.items() if row.family is LION} == {
        (0.9, 0.99)
    }
