"""The torchao names against torchao's own classes, built by hand.

torch.compile is told to run eagerly, except where a test is about compiled steps: compiling takes
seconds for every shape and setting, and hub's part is the same in both.
"""

import inspect
import io
import re
import subprocess
import sys
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
import torchao.optim
from hub_torchao.hooks import SPECS
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torchao.optim.subclass_4bit import OptimState4bit
from torchao.optim.subclass_8bit import OptimState8bit

import hub
from hub import backend
from hub.spec import Level
from hub.testing.comparing import assert_same, weights

factory = backend.load("hub_torchao.factory")  # what its import warns of is contained
compilers = backend.load("hub_torchao.compilers")
pytestmark = pytest.mark.filterwarnings("ignore:.*bf16 weights:hub.HubWarning")

SPEC = {spec.name: spec for spec in SPECS}
CLASSES = {
    "adamw_torch_4bit": torchao.optim.AdamW4bit,
    "adamw_torch_8bit": torchao.optim.AdamW8bit,
}
QUANTISED = {"adamw_torch_4bit": OptimState4bit, "adamw_torch_8bit": OptimState8bit}
ARGUMENTS = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}
every_name = pytest.mark.parametrize("name", CLASSES)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


compiled = pytest.mark.usefixtures("_compiling")


@pytest.fixture(autouse=True)
def _eager(request):
    torch.set_num_threads(1)
    stance = "default" if "_compiling" in request.fixturenames else "force_eager"
    with torch.compiler.set_stance(stance):
        yield


@pytest.fixture
def _compiling():
    """Ask `_eager` for the real thing."""


class Model(nn.Sequential):
    """Two weights that are quantised, one that is too small, biases and a norm."""

    def __init__(self, dtype=torch.float32):
        torch.manual_seed(0)
        super().__init__(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 128), nn.Linear(128, 3))
        self.to(dtype)


class Small(nn.Linear):
    """One quantised weight and one small bias: two kernels to compile."""

    def __init__(self, dtype=torch.float32):
        torch.manual_seed(0)
        super().__init__(64, 64, dtype=dtype)


def gradients(model, step):
    """Fill in the gradients of one deterministic batch."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 64, generator=generator).to(next(model.parameters()).dtype)
    model.zero_grad()
    model(inputs).float().square().mean().backward()


def train(model, optimizer, steps):
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


def build(name, model, **arguments):
    return hub.build(name, model, **{**ARGUMENTS, **arguments})


def by_hand(name, model, **arguments):
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return CLASSES[name](groups, **{**ARGUMENTS, **arguments})


def written(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def through_a_file(value):
    return torch.load(io.BytesIO(written(value)), weights_only=True)


def resumed(name, saved, dtype=torch.float32, model_class=Model, **arguments):
    """Return a fresh model and optimizer that go on from state dicts."""
    model = model_class(dtype)
    model.load_state_dict(saved[0])
    optimizer = build(name, model, **arguments)
    optimizer.load_state_dict(saved[1])
    return model, optimizer


def trained(name, steps=4, dtype=torch.float32, builder=build, **arguments):
    model = Model(dtype)
    optimizer = builder(name, model, **arguments)
    return train(model, optimizer, range(steps)), optimizer


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    fields = SPEC[name].arguments.model_fields
    theirs = inspect.signature(CLASSES[name]).parameters
    assert {key: field.default for key, field in fields.items()} == {
        key: parameter.default
        for key, parameter in theirs.items()
        if key not in ("params", "amsgrad")
    }
    assert all(field.description for field in fields.values())


@both_dtypes
@every_name
def test_it_is_the_upstream_optimizer(name, dtype):
    ours, optimizer = trained(name, 6, dtype)
    theirs, _ = trained(name, 6, dtype, by_hand)
    assert type(optimizer) is CLASSES[name]
    assert type(optimizer.state[ours[0].weight]["exp_avg"]) is QUANTISED[name]
    assert_same(ours, theirs)


@every_name
def test_arguments_reach_upstream_from_text(name):
    model, other = Model(), Model()
    text = "block_size=64, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.5, lr=0.02"
    train(model, hub.build(name, model, optim_args=text), range(4))
    arguments = {"block_size": 64, "betas": (0.5, 0.9), "eps": 1e-3}
    reference = by_hand(name, other, **arguments, weight_decay=0.5, lr=0.02)
    assert_same(model, train(other, reference, range(4)))


@compiled
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("adamw_torch_4bit", torch.float32), ("adamw_torch_8bit", torch.bfloat16)],
    ids=str,
)
def test_compiled_steps_are_upstreams_and_resume_exactly(name, dtype):
    straight, other, model = Small(dtype), Small(dtype), Small(dtype)
    train(straight, build(name, straight), range(6))
    assert_same(straight, train(other, by_hand(name, other), range(6)))
    optimizer = build(name, model)
    train(model, optimizer, range(3))
    for group in optimizer.param_groups:
        group["lr"] = ARGUMENTS["lr"]
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    assert_same(train(*resumed(name, saved, dtype, Small), range(3, 6)), straight)
    assert_same(train(model, optimizer, range(3, 6)), straight)


@compiled
def test_a_hook_on_gradients_may_step():
    model, other = Small(), Small()
    train(model, build("adamw_torch_4bit", model), range(3))
    optimizer = build("adamw_torch_4bit", other)

    def step(parameter):
        optimizer.step()
        parameter.grad = None

    for parameter in other.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    for number in range(3):
        gradients(other, number)
    assert_same(model, other)


@both_dtypes
@every_name
def test_it_resumes_exactly_after_several_loads(name, dtype):
    straight, _ = trained(name, 9, dtype)
    model, optimizer = trained(name, 2, dtype)
    for steps in pairwise([2, 5, 9]):
        saved = through_a_file([model.state_dict(), optimizer.state_dict()])
        model, optimizer = resumed(name, saved, dtype)
        train(model, optimizer, range(*steps))
    assert_same(model, straight)


@every_name
def test_state_dicts_hold_tensors_and_plain_data(name):
    def leaves(value):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item) if isinstance(item, dict | list | tuple) else [item]

    _, optimizer = trained(name)
    saved = optimizer.state_dict()
    for leaf in leaves(saved["state"]):
        assert type(leaf) in (torch.Tensor, bool)
    assert saved["param_groups"][0]["lr"] == pytest.approx(ARGUMENTS["lr"])
    assert type(saved["param_groups"][0]["lr"]) is float


def test_the_file_loads_where_torchao_was_never_imported(tmp_path):
    for builder, file in [(build, "ours"), (by_hand, "theirs")]:
        (tmp_path / file).write_bytes(
            written(trained("adamw_torch_8bit", 1, builder=builder)[1].state_dict())
        )
    code = (
        "import pickle, sys, torch\n"
        "torch.load('ours', weights_only=True)\n"
        "try:\n"
        "    torch.load('theirs', weights_only=True)\n"
        "except pickle.UnpicklingError:\n"
        "    assert 'torchao' not in sys.modules\n"
        "else:\n"
        "    raise AssertionError('upstream is mended')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@every_name
def test_state_dicts_can_be_copied(name):
    model, optimizer = trained(name)
    saved = [deepcopy(model.state_dict()), deepcopy(optimizer.state_dict())]
    straight = train(model, optimizer, range(4, 8))
    assert_same(train(*resumed(name, saved), range(4, 8)), straight)
    _, reference = trained(name, builder=by_hand)
    with pytest.raises(NotImplementedError):
        deepcopy(reference.state_dict())


@every_name
def test_saving_changes_nothing_and_loading_shares_nothing(name):
    straight, _ = trained(name, 8)
    model, optimizer = trained(name)
    other, follower = resumed(name, [model.state_dict(), optimizer.state_dict()])
    train(other, follower, range(20, 24))
    for group in follower.param_groups:
        group["lr"].fill_(1.0)
    assert type(optimizer.state[model[0].weight]["exp_avg"]) is QUANTISED[name]
    assert_same(train(model, optimizer, range(4, 8)), straight)


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@every_name
def test_a_distributed_checkpoint_resumes_exactly(name, flat):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    straight, _ = trained(name, 8)
    model, optimizer = trained(name)
    saved = deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    fresh = Model()
    fresh.load_state_dict(model.state_dict())
    follower = build(name, fresh)
    set_optimizer_state_dict(fresh, follower, saved, options=options)
    assert_same(train(fresh, follower, range(4, 8)), straight)


@pytest.mark.parametrize("transport", [lambda state: state, through_a_file], ids=["live", "file"])
@both_dtypes
@every_name
def test_a_checkpoint_of_upstreams_is_loaded(name, dtype, transport):
    straight, _ = trained(name, 8, dtype, by_hand)
    model, reference = trained(name, 4, dtype, by_hand)
    saved = transport([model.state_dict(), reference.state_dict()])
    fresh, optimizer = resumed(name, saved, dtype)
    assert_same(train(fresh, optimizer, range(4, 8)), straight)
    assert_same(train(model, reference, range(4, 8)), straight)  # nothing is shared
    through_a_file(optimizer.state_dict())


def test_state_of_fp32_weights_continues_in_bf16():
    saved = [m.state_dict() for m in trained("adamw_torch_8bit")]
    model, optimizer = resumed("adamw_torch_8bit", saved, torch.bfloat16)
    state = optimizer.state[model[0].weight]["exp_avg_sq"]
    assert torch.equal(state.scale, next(iter(saved[1]["state"].values()))["exp_avg_sq"]["scale"])
    train(model, optimizer, range(4, 6))
    assert optimizer.state[model[0].bias]["exp_avg"].dtype == torch.bfloat16


def test_state_of_other_bits_is_refused_where_upstream_trains_on():
    model, reference = trained("adamw_torch_4bit", builder=by_hand)
    other = by_hand("adamw_torch_8bit", model)
    other.load_state_dict(reference.state_dict())
    train(model, other, [0])
    assert type(other.state[model[0].weight]["exp_avg"]) is OptimState4bit
    optimizer = build("adamw_torch_8bit", model)
    with pytest.raises(hub.CheckpointError, match="not 8-bit state"):
        optimizer.load_state_dict(reference.state_dict())
    assert not optimizer.state
    with pytest.raises(hub.CheckpointError, match="not of adamw_torch_8bit"):
        optimizer.load_state_dict(build("adamw_torch_4bit", model).state_dict())


@every_name
def test_another_block_size_is_refused(name):
    model, optimizer = trained(name)
    other = build(name, model, block_size=64)
    with pytest.raises(hub.CheckpointError, match="block_size"):
        other.load_state_dict(optimizer.state_dict())


@every_name
def test_a_number_as_learning_rate_is_used_and_read_back(name):
    ours, theirs = Model(), Model()
    optimizer, reference = build(name, ours), by_hand(name, theirs)
    for step, rate in enumerate([0.01, 0.003, 0.05]):
        for group, other in zip(optimizer.param_groups, reference.param_groups, strict=True):
            group["lr"] = rate
            other["lr"].fill_(rate)
        train(ours, optimizer, [step])
        train(theirs, reference, [step])
        assert all(group["lr"] == rate for group in optimizer.param_groups)
    assert_same(ours, theirs)
    reference.param_groups[0]["lr"] = 0.01
    with pytest.raises(RuntimeError, match="non-Tensor"):
        reference.step()


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9, cycle_momentum=False),
        lambda o: hub.build_scheduler("cosine", o, num_warmup_steps=2, num_training_steps=8),
    ],
    ids=["lambda", "onecycle", "hub"],
)
@every_name
def test_schedules_are_followed_and_resume(name, schedule):
    def run(model, optimizer, following, steps):
        rates = []
        for step in steps:
            train(model, optimizer, [step])
            following.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return rates

    straight, optimizer = trained(name, 0)
    rates = run(straight, optimizer, schedule(optimizer), range(8))
    assert len(set(rates)) > 4
    model, optimizer = trained(name, 0)
    following = schedule(optimizer)
    assert run(model, optimizer, following, range(4)) == rates[:4]
    saved = through_a_file([model.state_dict(), optimizer.state_dict(), following.state_dict()])
    fresh, follower = trained(name, 0)
    following = schedule(follower)
    fresh.load_state_dict(saved[0])
    follower.load_state_dict(saved[1])
    following.load_state_dict(saved[2])
    assert run(fresh, follower, following, range(4, 8)) == rates[4:]
    assert_same(fresh, straight)


@every_name
def test_a_learning_rate_of_zero_moves_nothing(name):
    model, optimizer = trained(name, 2)
    for group in optimizer.param_groups:
        group["lr"] = 0
    before = weights(model)
    train(model, optimizer, range(2, 4))
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())


@every_name
def test_arguments_of_a_group_are_those_asked_for(name):
    model, other = Model(), Model()
    rule = {"weight_decay": 0.3, "betas": (0.6, 0.9), "eps": 1e-3, "lr_scale": 0.5}
    optimizer = build(name, model, param_rules={"2.weight": rule})
    settings = {"weight_decay": 0.3, "betas": (0.6, 0.9), "eps": 1e-3}
    reference = CLASSES[name](
        [
            {"params": [other[0].weight, other[3].weight]},
            {"params": [p for p in other.parameters() if p.ndim < 2], "weight_decay": 0.0},
            {"params": [other[2].weight], **settings, "lr": 0.005},
        ],
        **ARGUMENTS,
    )
    assert_same(train(model, optimizer, range(4)), train(other, reference, range(4)))


@every_name
def test_a_closure_may_call_backward(name):
    model, other = Model(), Model()
    optimizer = build(name, model)

    def closure():
        gradients(model, 0)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert_same(model, train(other, build(name, other), [0]))


@every_name
def test_gradients_may_be_missing_and_parameters_join_late(name):
    ours, theirs = Model(), Model()
    for model in (ours, theirs):
        model[2].requires_grad_(False)
    optimizer = build(name, ours)
    reference = CLASSES[name](
        [
            {"params": [theirs[0].weight, theirs[3].weight]},
            {"params": [theirs[0].bias, *theirs[1].parameters(), theirs[3].bias]}
            | {"weight_decay": 0.0},
        ],
        **ARGUMENTS,
    )
    before = weights(ours)
    for step in range(6):
        for model, each in ((ours, optimizer), (theirs, reference)):
            if step == 3:
                model[2].requires_grad_()
                late = model[2].named_parameters() if model is ours else model[2].parameters()
                each.add_param_group({"params": [*late], "lr": 0.02})
            gradients(model, step)
            if step % 2:
                model[0].weight.grad = None
            each.step()
        if step == 2:
            assert torch.equal(ours[2].weight, before["2.weight"])
    assert_same(ours, theirs)
    assert not torch.equal(ours[2].weight, before["2.weight"])


@both_dtypes
@every_name
def test_it_trains(name, dtype):
    model = Model(dtype)
    optimizer = build(name, model)
    losses = []
    for _ in range(20):
        inputs = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
        optimizer.zero_grad()
        loss = model(inputs).float().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@every_name
def test_fp16_weights_are_refused_as_upstream_takes_too_long_steps(name):
    def moved(dtype):
        bias = nn.Parameter(torch.zeros(64, dtype=dtype))
        optimizer = CLASSES[name]([bias], lr=1e-2)
        for _ in range(20):
            bias.grad = torch.full_like(bias, 1e-4)
            optimizer.step()
        return -bias.mean().item()

    assert moved(torch.float32) == pytest.approx(20 * 1e-2, rel=1e-2)
    assert moved(torch.float16) > 2.5 * 20 * 1e-2
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(hub.PrecisionError, match="does not train correctly"):
            build(name, Model(dtype))


@every_name
def test_amsgrad_is_refused_as_upstream_cannot_take_its_first_step(name):
    model = Model()
    with pytest.raises(NotImplementedError):
        train(model, by_hand(name, model, amsgrad=True), [0])
    with pytest.raises(hub.OptimArgsError, match="no argument 'amsgrad'"):
        build(name, model, amsgrad=True)


@pytest.mark.filterwarnings("error::hub.HubWarning")
@every_name
def test_stochastic_rounding_keeps_small_updates_and_is_upstreams(name):
    arguments = {"lr": 1e-4, "weight_decay": 0.0}
    moved = {}
    for stochastic in (True, False):
        with torch.random.fork_rng():
            model = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
            nn.init.ones_(model.weight)
            optimizer = by_hand(name, model, bf16_stochastic_round=stochastic, **arguments)
            for _ in range(40):
                model.weight.grad = torch.ones_like(model.weight)
                optimizer.step()
        moved[stochastic] = 1 - model.weight.float().mean().item()
    assert moved[False] == 0.0
    assert moved[True] == pytest.approx(40 * 1e-4, rel=0.1)


@every_name
def test_stochastic_rounding_resumes_exactly_with_the_random_state(name):
    def fresh():
        model = Model(torch.bfloat16)
        return model, build(name, model, bf16_stochastic_round=True)

    straight, optimizer = fresh()
    torch.manual_seed(3)
    train(straight, optimizer, range(6))
    model, optimizer = fresh()
    torch.manual_seed(3)
    train(model, optimizer, range(3))
    saved = through_a_file([model.state_dict(), optimizer.state_dict(), torch.get_rng_state()])
    model, optimizer = fresh()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    assert_same(train(model, optimizer, range(3, 6)), straight)


def test_stochastic_rounding_of_replicas_is_refused_as_they_would_come_apart(monkeypatch):
    def replica(seed):
        model = Model(torch.bfloat16)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # as after dropout on other data
            reference = by_hand("adamw_torch_8bit", model, bf16_stochastic_round=True)
            return train(model, reference, range(2))

    assert not torch.equal(replica(1)[0].weight, replica(2)[0].weight)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(hub.PrecisionError, match="drift apart"):
        build("adamw_torch_8bit", Model(torch.bfloat16), bf16_stochastic_round=True)
    build("adamw_torch_8bit", Model(torch.bfloat16))


def test_stochastic_rounding_of_fp32_weights_is_warned_of():
    with pytest.warns(hub.HubWarning, match="no parameter is bf16"):
        build("adamw_torch_8bit", Model(), bf16_stochastic_round=True)


@pytest.mark.parametrize(
    ("name", "block_size", "large"),
    [
        ("adamw_torch_4bit", 128, None),
        ("adamw_torch_8bit", 8192, r"0\.weight, 32% of all"),
        ("adamw_torch_8bit", 1000, r"0\.weight and 1 more, 95% of all"),
    ],
)
def test_the_plan_notes_what_is_large_and_not_quantised(name, block_size, large):
    model = Model()
    findings = hub.plan(name, model, block_size=block_size).findings
    assert [finding.level for finding in findings] == ([Level.NOTE] if large else [])
    optimizer = build(name, model, block_size=block_size)
    train(model, optimizer, [0])
    is_quantised = type(optimizer.state[model[0].weight]["exp_avg"]) is QUANTISED[name]
    assert is_quantised == (large is None)
    if large:
        assert re.search(large, findings[0].what)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("adamw_torch_4bit", {"block_size": 17}, "multiple of 2"),
        ("adamw_torch_8bit", {"block_size": 0}, "greater than 0"),
        ("adamw_torch_8bit", {"block_size": 256.0}, "integer"),
        ("adamw_torch_8bit", {"optim_args": "block_size=many"}, "integer"),
        ("adamw_torch_8bit", {"betas": (0.9, 1.0)}, "less than 1"),
        ("adamw_torch_4bit", {"lr": -1.0}, "greater than or equal to 0"),
        ("adamw_torch_4bit", {"bf16_stochastic_round": "perhaps"}, "boolean"),
        ("adamw_torch_4bit", {"offload_gradients": True}, "no argument"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build(name, Model(), **arguments)


def test_an_odd_block_size_fails_in_upstreams_4_bit():
    weight = nn.Parameter(torch.ones(241, 17))
    optimizer = torchao.optim.AdamW4bit([weight], block_size=17)
    weight.grad = torch.ones_like(weight)
    with pytest.raises(RuntimeError):
        optimizer.step()


@every_name
def test_sharded_parameters_are_refused(name):
    model = Model()
    model[2].weight.device_mesh = "as a DTensor has it"
    with pytest.raises(hub.UnsupportedError, match="FSDP2") as refused:
        build(name, model)
    assert refused.value.where == "2.weight"


@compiled
def test_a_missing_compiler_is_refused_when_building_where_upstream_fails_in_the_step():
    model = nn.Linear(64, 65)
    nothing = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with nothing, pytest.raises(hub.UnsupportedError, match=r"C\+\+ compiler") as refused:
        build("adamw_torch_8bit", model)
    assert "CXX" in refused.value.fix
    with nothing, torch._inductor.utils.fresh_cache():
        reference = by_hand("adamw_torch_8bit", model)
        gradients(model, 0)
        with pytest.raises(Exception, match="No working C"):
            reference.step()


@compiled
def test_without_compiling_no_compiler_is_needed(monkeypatch):
    model, other = Small(), Small()
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        train(model, build("adamw_torch_8bit", model), range(3))
    assert_same(model, train(other, by_hand("adamw_torch_8bit", other), range(3)))


@compiled
def test_compiling_switched_off_is_refused_where_upstream_fails_in_the_step():
    model = Small()
    with torch._dynamo.config.patch(disable=True):  # TORCH_COMPILE_DISABLE=1
        with pytest.raises(RuntimeError, match="no compiled frames"):
            train(model, by_hand("adamw_torch_8bit", model), [0])
        with pytest.raises(hub.UnsupportedError, match="TORCH_COMPILE_DISABLE"):
            build("adamw_torch_8bit", model)


def test_missing_triton_is_refused_on_cuda(monkeypatch):
    monkeypatch.setattr(compilers, "has_triton", lambda: False)
    assert not list(compilers.problems(("cpu",)))
    ((problem, _),) = compilers.problems(("cuda",))
    assert "needs triton" in problem


def test_building_says_nothing_and_leaves_nothing_behind():
    code = """if True:
        import logging, sys, warnings
        import torch, hub
        model = torch.nn.Linear(64, 64)
        def picture():
            names = ("torch", "torch.utils._pytree", "sympy")
            loggers = [logging.getLogger(), *map(logging.getLogger, names)]
            settings = [(x.level, *x.handlers, *x.filters, x.propagate) for x in loggers]
            return list(warnings.filters), settings, torch.get_rng_state().tolist()
        before = picture()
        assert "torchao" not in sys.modules
        hub.build("adamw_torch_4bit", model)
        assert "torchao" in sys.modules
        assert picture() == before
        assert not logging.getLogger("torchao").filters"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_hooks_import_neither_torch_nor_torchao():
    code = (
        "import sys, hub_torchao.hooks\n"
        "assert not {'torch', 'torchao', 'hub_torchao.factory'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
