"""`stable_adamw` against optimi's own class, built by hand."""

import copy
import inspect
import subprocess
import sys
import warnings
from importlib.util import find_spec

import optimi
import pytest
import torch
from hub_optimi import factory
from hub_optimi.hooks import SPEC
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.testing.comparing import assert_same, moved, through_a_file, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")

OWN = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str
)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
implementations = pytest.mark.parametrize(
    "arguments",
    [{}, {"foreach": True}, {"foreach": False}, {"triton": False}, {"kahan_sum": False}],
    ids=str,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def with_triton(monkeypatch):
    """Make optimi believe that it can import triton, which makes it choose wrongly."""
    monkeypatch.setattr("optimi.utils.HAS_TRITON", True)
    monkeypatch.setattr("optimi.optimizer.HAS_TRITON", True)


def make_model(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 8)).to(dtype)


def gradients(model, step):
    """Fill in the gradients of one deterministic batch."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(4, 16, generator=generator).to(next(model.parameters()).dtype)
    model.zero_grad()
    model(inputs).float().square().mean().backward()


def train(model, optimizer, steps):
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


def build(model, **arguments):
    return hub.build("stable_adamw", model, **{**OWN, **arguments})


def by_hand(model, **arguments):
    """Upstream's class over the same groups, kept from choosing triton on a CPU."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    if "foreach" not in arguments:
        arguments["triton"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optimi.StableAdamW(groups, **{**OWN, **arguments})


def resumed(model, optimizer, dtype=None, **arguments):
    """A fresh model and optimizer, loaded from a file that the given ones were saved to."""
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = make_model(dtype or next(model.parameters()).dtype)
    fresh.load_state_dict(saved[0])
    again = build(fresh, **arguments)
    again.load_state_dict(saved[1])
    return fresh, again


# The arguments.


def test_the_arguments_and_their_defaults_are_upstreams():
    theirs = inspect.signature(optimi.StableAdamW).parameters
    expected = {key: p.default for key, p in theirs.items()}
    del expected["params"], expected["gradient_release"]
    assert expected["lr"] is inspect.Parameter.empty
    ours = {key: field.default for key, field in SPEC.arguments.model_fields.items()}
    assert ours == {**expected, "lr": 1e-3}
    assert all(field.description for field in SPEC.arguments.model_fields.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"gradient_release": True}, "no argument 'gradient_release'"),
        ({"foreach": True, "triton": True}, "leave one of them out"),
        ({"max_lr": 0.1}, "without decouple_lr=True"),
        ({"max_lr": 0.0, "decouple_lr": True}, "greater than 0"),
        ({"lr": 0.0, "decouple_lr": True}, "pass max_lr"),
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"eps": -1e-8}, "greater than or equal to 0"),
        ({"weight_decay": -0.1}, "greater than or equal to 0"),
        ({"kahan_sum": "perhaps"}, "boolean"),
        ({"betas": (0.9,)}, "betas"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(make_model(), **arguments)


def test_arguments_can_be_written_as_text():
    # Transformers 5.23 makes True of all of these (`bool` of a text).
    plan = hub.plan("stable_adamw", make_model(), optim_args="kahan_sum=False, decouple_lr=false")
    values = {argument.name: argument.value for argument in plan.arguments}
    assert values["kahan_sum"] is False
    assert values["decouple_lr"] is False


@pytest.mark.parametrize("arguments", [{"foreach": True}, {"decouple_lr": True, "max_lr": 0.1}])
def test_building_leaves_nothing_behind(arguments):
    model = make_model()
    before, state, filters = weights(model), torch.get_rng_state(), list(warnings.filters)
    optimizer = hub.build("stable_adamw", model, weight_decay=1e-5, **arguments)
    assert not moved(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert warnings.filters == filters
    assert not optimizer.state


def test_the_hooks_import_neither_torch_nor_optimi():
    code = (
        "import sys, hub_optimi.hooks\n"
        "assert not {'torch', 'optimi', 'hub_optimi.factory'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The same optimizer.


@every_dtype
@implementations
def test_it_is_the_upstream_optimizer(arguments, dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    optimizer = build(ours, **arguments)
    assert isinstance(optimizer, optimi.StableAdamW)
    reference = by_hand(theirs, **arguments)
    assert_same(train(ours, optimizer, range(12)), train(theirs, reference, range(12)))


@every_dtype
def test_it_learns(dtype):
    # The fp16 modes train fp32 weights; for fp16 weights see below.
    model = make_model(dtype)
    inputs = torch.randn(32, 16, dtype=dtype, generator=torch.Generator().manual_seed(1))
    target = inputs[:, :8]
    optimizer = build(model, lr=0.02)

    def loss():
        optimizer.zero_grad()
        value = (model(inputs) - target).square().mean()
        value.backward()
        return value

    first = loss().item()
    for _ in range(30):
        optimizer.step(loss)
    assert loss().item() < first / 5


def test_small_updates_of_bf16_weights_are_not_lost():
    exact = nn.Linear(4, 4, bias=False)
    nn.init.ones_(exact.weight)
    half = copy.deepcopy(exact).bfloat16()
    for model in (exact, half):
        optimizer = build(model, lr=1e-3, weight_decay=0.0)
        for _ in range(20):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
    assert 0.015 < 1 - exact.weight[0, 0] < 0.025
    torch.testing.assert_close(half.weight.float(), exact.weight, atol=2**-8, rtol=0)


def test_fp16_weights_are_refused():
    with pytest.raises(hub.PrecisionError, match="fp16"):
        build(make_model(torch.float16))


def test_the_bare_class_overshoots_with_fp16_weights():
    """When this fails, fp16 may be declared."""
    weight = nn.Parameter(torch.ones(4, dtype=torch.float16))
    weight.grad = torch.tensor([1e-4, 0.0, 0.0, 0.0]).half()
    optimi.StableAdamW([weight], lr=1e-3, triton=False, weight_decay=0.0).step()
    assert weight[0] < 0.92


@both_dtypes
@implementations
def test_it_resumes_exactly(arguments, dtype):
    straight, model = make_model(dtype), make_model(dtype)
    train(straight, build(straight, **arguments), range(10))
    optimizer = build(model, **arguments)
    train(model, optimizer, range(5))
    fresh, again = resumed(model, optimizer, **arguments)
    assert_same(train(fresh, again, range(5, 10)), straight)


@both_dtypes
def test_a_distributed_checkpoint_resumes_exactly(dtype):
    straight, model, fresh = make_model(dtype), make_model(dtype), make_model(dtype)
    train(straight, build(straight), range(10))
    optimizer = build(model)
    train(model, optimizer, range(5))
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    fresh.load_state_dict(model.state_dict())
    again = build(fresh)
    set_optimizer_state_dict(fresh, again, saved)
    assert_same(train(fresh, again, range(5, 10)), straight)


@both_dtypes
def test_a_checkpoint_of_the_bare_class_is_continued(dtype):
    straight, model, fresh = make_model(dtype), make_model(dtype), make_model(dtype)
    other = {"betas": (0.7, 0.9)}
    train(straight, by_hand(straight, **other), range(10))
    reference = by_hand(model, **other)
    train(model, reference, range(5))
    fresh.load_state_dict(model.state_dict())
    optimizer = build(fresh)
    optimizer.load_state_dict(through_a_file(reference.state_dict()))
    assert optimizer.param_groups[0]["betas"] == (0.7, 0.9)
    assert_same(train(fresh, optimizer, range(5, 10)), straight)


def test_state_dicts_hold_tensors_and_plain_data():
    model = make_model(torch.bfloat16)
    optimizer = build(model)
    train(model, optimizer, [0])
    for state in optimizer.state_dict()["state"].values():
        assert set(state) == {"exp_avg", "exp_avg_sq", "eps_sq", "kahan_comp"}
        assert all(isinstance(value, torch.Tensor) for value in state.values())


@both_dtypes
def test_a_copy_goes_on_like_the_original(dtype):
    model = make_model(dtype)
    optimizer = build(model)
    train(model, optimizer, range(3))
    hub.detach(optimizer)
    other, copied = copy.deepcopy([model, optimizer])
    assert_same(train(model, optimizer, range(3, 6)), train(other, copied, range(3, 6)))


# Groups.


def test_decay_reaches_exactly_the_decayed_parameters():
    model = make_model()
    before = weights(model)
    optimizer = build(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert moved(model, before) == {"0.weight", "2.weight"}
    torch.testing.assert_close(model[0].weight, before["0.weight"] * (1 - 0.01 * 0.1))


def test_arguments_reach_every_group():
    optimizer = build(make_model())
    assert len(optimizer.param_groups) == 2
    for group in optimizer.param_groups:
        assert (group["lr"], group["eps"], group["betas"]) == (0.01, 1e-7, (0.8, 0.95))
        assert (group["beta1"], group["beta2"]) == (0.8, 0.95)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]


@both_dtypes
def test_groups_may_have_arguments_of_their_own(dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    own = {"lr": 0.1, "betas": (0.5, 0.6), "eps": 1e-5, "weight_decay": 0.3, "kahan_sum": False}
    optimizer = build(ours, param_rules={r"2\.weight": own})
    beta1, beta2 = own.pop("betas")
    groups = [
        {"params": [theirs[0].weight]},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        {"params": [theirs[2].weight], **own, "beta1": beta1, "beta2": beta2},
    ]
    reference = optimi.StableAdamW(groups, **OWN, triton=False)
    assert_same(train(ours, optimizer, range(5)), train(theirs, reference, range(5)))


def test_state_dicts_say_what_was_asked_for():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    for live, saved in zip(
        optimizer.param_groups, optimizer.state_dict()["param_groups"], strict=True
    ):
        assert live["triton"] is False
        assert saved["triton"] is None


def test_the_next_update_uses_the_learning_rate_of_the_group():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights(model)
    train(model, optimizer, range(2))
    assert not moved(model, before)


@both_dtypes
def test_frozen_parameters_stay_and_late_ones_join(dtype):
    model, extra = make_model(dtype), nn.Linear(16, 8).to(dtype)
    model[0].requires_grad_(False)
    before = weights(model)
    optimizer = build(model)
    train(model, optimizer, range(3))
    assert moved(model, before) == {"1.weight", "1.bias", "2.weight", "2.bias"}
    model[0].requires_grad_(True)
    late = {**dict(model[0].named_parameters()), **dict(extra.named_parameters(prefix="extra"))}
    optimizer.add_param_group({"params": list(late.values()), "param_names": list(late), "lr": 0.5})
    before = weights(model) | weights(extra)
    for step in range(3, 6):
        gradients(model, step)
        extra(torch.ones(1, 16, dtype=dtype)).sum().backward()
        optimizer.step()
    assert moved(model, before) == {name for name, _ in model.named_parameters()}
    assert moved(extra, before) == {"weight", "bias"}
    assert optimizer.param_groups[-1]["betas"] == (0.8, 0.95)
    assert optimizer.param_groups[-1]["step"] == 3


def test_a_missing_gradient_leaves_its_parameter_alone():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    before = weights(model)
    gradients(model, 1)
    model[0].weight.grad = None
    optimizer.step()
    assert "0.weight" not in moved(model, before)


def test_a_closure_may_call_backward():
    model, other = make_model(), make_model()
    optimizer = build(model)

    def closure():
        gradients(model, 0)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert_same(model, train(other, build(other), [0]))


# betas.


def test_betas_of_the_group_are_followed():
    ours, theirs = make_model(), make_model()
    optimizer, reference = build(ours), by_hand(theirs)
    train(ours, optimizer, range(2))
    train(theirs, reference, range(2))
    for group in optimizer.param_groups:
        group["betas"] = (0.5, 0.95)
    for group in reference.param_groups:
        group["beta1"] = 0.5
    assert_same(train(ours, optimizer, range(2, 5)), train(theirs, reference, range(2, 5)))


def test_onecyclelr_cycles_betas():
    model = make_model()
    optimizer = build(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    seen = set()
    for step in range(8):
        train(model, optimizer, [step])
        schedule.step()
        seen.add(optimizer.param_groups[0]["beta1"])
    assert len(seen) > 5


def test_the_bare_class_has_no_betas_to_cycle():
    """When this fails, `group["betas"]` need not be ours any more."""
    optimizer = by_hand(make_model())
    with pytest.raises(ValueError, match="momentum or beta1"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)


# Triton.


@pytest.mark.usefixtures("with_triton")
def test_the_bare_class_chooses_triton_on_a_cpu():
    """When this fails, `factory.StableAdamW._init_group` need not choose any more."""
    model = make_model()
    optimizer = optimi.StableAdamW(model.parameters(), lr=0.01)
    # "0 active drivers", or where triton is missing the kernels are.
    with pytest.raises((RuntimeError, NameError)):
        train(model, optimizer, [0])
    assert optimizer.param_groups[0]["triton"] is True


@pytest.mark.usefixtures("with_triton")
def test_it_runs_on_a_cpu_where_triton_can_be_imported():
    ours, theirs = make_model(), make_model()
    optimizer = build(ours)
    optimizer.step()  # no gradients: upstream decides for triton here at the latest
    reference = by_hand(theirs)
    reference.step()
    assert_same(train(ours, optimizer, range(3)), train(theirs, reference, range(3)))
    assert all(group["triton"] is False for group in optimizer.param_groups)


def test_triton_on_a_cpu_is_refused():
    with pytest.raises(hub.PrecisionError, match="parameters are on cpu"):
        build(make_model(), triton=True)


@pytest.mark.parametrize(("dtype", "refused"), [(torch.float32, False), (torch.float64, True)])
def test_triton_can_be_planned_for_elsewhere(monkeypatch, dtype, refused):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: object())
    plan = hub.plan("stable_adamw", make_model(dtype).to("meta"), triton=True)
    assert plan.materialized().refused is refused


def test_triton_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    plan = hub.plan("stable_adamw", make_model().to("meta"), triton=True)
    assert any("not installed" in finding.what for finding in plan.findings)
    assert plan.refused


@pytest.mark.parametrize(
    ("dtype", "asked", "expected"),
    [
        (torch.float32, {}, True),
        (torch.bfloat16, {}, True),
        (torch.float64, {}, False),
        (torch.float32, {"foreach": False}, None),
        (torch.float32, {"triton": False}, False),
    ],
    ids=str,
)
def test_triton_is_chosen_where_upstreams_kernels_serve(monkeypatch, dtype, asked, expected):
    # As on a GPU: what upstream says of its parameters is put in its place, the step is not taken.
    monkeypatch.setattr(factory, "_default_to_triton", bool)
    monkeypatch.setattr(optimi.StableAdamW, "_init_group", lambda *_, **__: None)
    optimizer = factory.StableAdamW([*make_model(dtype).parameters()], **OWN, **asked)
    optimizer._init_group(optimizer.param_groups[0])
    assert optimizer.param_groups[0]["triton"] is expected


def as_written_on_a_gpu(optimizer):
    """The state dict as triton's implementation leaves it (`optimi/stableadamw.py`)."""
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group["triton"] = True
    for state in saved["state"].values():
        state["mean_square"] = torch.zeros(1)
        if state["kahan_comp"] is None:
            state["kahan_comp"] = torch.zeros(1, dtype=torch.uint8)
    return through_a_file(saved)


@both_dtypes
@pytest.mark.parametrize("arguments", [{}, {"foreach": True}], ids=str)
def test_a_checkpoint_from_a_gpu_resumes_on_a_cpu(arguments, dtype):
    straight, model, fresh = make_model(dtype), make_model(dtype), make_model(dtype)
    train(straight, build(straight, **arguments), range(6))
    optimizer = build(model, **arguments)
    train(model, optimizer, range(3))
    fresh.load_state_dict(model.state_dict())
    again = build(fresh, **arguments)
    again.load_state_dict(as_written_on_a_gpu(optimizer))
    assert_same(train(fresh, again, range(3, 6)), straight)


@pytest.mark.usefixtures("with_triton")
def test_the_bare_class_takes_the_implementation_of_the_checkpoint():
    """When this fails, `factory.StableAdamW.load_state_dict` need not keep ours any more."""
    model = make_model()
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    optimizer.load_state_dict(as_written_on_a_gpu(optimizer))
    with pytest.raises((RuntimeError, NameError)):
        train(model, optimizer, [1])


@pytest.mark.usefixtures("with_triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_checkpoint_from_a_cpu_is_made_fit_for_triton(dtype):
    model, fresh = make_model(dtype), make_model(dtype)
    optimizer = build(model)
    train(model, optimizer, range(3))
    fresh.load_state_dict(model.state_dict())
    groups = [
        {"params": [dict(fresh.named_parameters())[name] for name in group["param_names"]]}
        for group in optimizer.param_groups
    ]
    again = factory.StableAdamW(groups, **OWN, triton=True)
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    for group in again.param_groups:
        assert group["triton"] is True
        for parameter in group["params"]:
            state = again.state[parameter]
            assert state["mean_square"].dtype == torch.float32
            low = dtype == torch.bfloat16
            assert state["kahan_comp"].shape == (parameter.shape if low else (1,))
            assert state["kahan_comp"].dtype == (dtype if low else torch.uint8)


def test_resuming_with_another_implementation_says_which_one_is_used():
    model = make_model()
    optimizer = build(model, foreach=True)
    train(model, optimizer, [0])
    with pytest.warns(hub.HubWarning, match=r"foreach True → False \(new value is used\)"):
        _, again = resumed(model, optimizer, foreach=False)
    assert again.param_groups[0]["foreach"] is False


# Kahan summation.


def hub_warnings(model, **arguments):
    plan = hub.plan("stable_adamw", model, **{**OWN, "weight_decay": 0.0, **arguments})
    return [finding.what for finding in plan.findings if finding.level == "warn"]


@pytest.mark.parametrize(
    ("arguments", "stalls"),
    [
        ({}, False),
        ({"kahan_sum": True}, False),
        ({"kahan_sum": False}, True),
        ({"param_rules": {"0": {"kahan_sum": False}}}, True),
        ({"kahan_sum": False, "param_rules": {".*": {"kahan_sum": True}}}, False),
        ({"kahan_sum": False, "lr": 0.01}, False),
    ],
    ids=str,
)
def test_bf16_weights_that_stall_are_warned_of(arguments, stalls):
    found = hub_warnings(make_model(torch.bfloat16), **{"lr": 1e-5, **arguments})
    assert ["mostly round to nothing" in what for what in found] == [True] * stalls
    assert not hub_warnings(make_model(), **{"lr": 1e-5, **arguments})


def test_kahan_sum_starts_when_fp32_training_is_resumed_in_bf16():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, range(3))
    fresh, again = resumed(model, optimizer, dtype=torch.bfloat16)
    train(fresh, again, range(3, 5))
    assert all(group["kahan_sum"] for group in again.param_groups)
    assert again.state[fresh[0].weight]["kahan_comp"].abs().max() > 0


def test_kahan_sum_ends_when_bf16_training_is_resumed_in_fp32():
    model = make_model(torch.bfloat16)
    optimizer = build(model)
    train(model, optimizer, range(3))
    fresh, again = resumed(model, optimizer, dtype=torch.float32)
    train(fresh, again, range(3, 5))
    assert again.state[fresh[0].weight]["kahan_comp"] is None


def test_the_bare_class_cannot_start_kahan_sum_when_resuming():
    """When this fails, `factory.StableAdamW._fit_state` need not make the tensors any more."""
    model, fresh = make_model(), make_model(torch.bfloat16)
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    again = by_hand(fresh)
    again.load_state_dict(optimizer.state_dict())
    train(fresh, again, [1])
    assert again.state[fresh[0].weight]["kahan_comp"] is None


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        ({"lr": 1e-2, "weight_decay": 0.1}, True),
        ({"lr": 1e-2, "weight_decay": 0.3}, False),
        ({"lr": 1e-2, "weight_decay": 0.0}, False),
        ({"lr": 1e-2, "weight_decay": 5e-4, "decouple_lr": True}, True),
    ],
    ids=str,
)
def test_decay_that_rounds_to_nothing_is_warned_of(arguments, lost):
    model = make_model(torch.bfloat16)
    found = [what for what in hub_warnings(model, **arguments) if "there is no decay" in what]
    assert len(found) == lost
    assert not hub_warnings(make_model(), **arguments)
    before = weights(model)
    optimizer = build(model, **arguments)
    for _ in range(5):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    decays = bool(arguments["weight_decay"]) and not lost
    assert moved(model, before) == ({"0.weight", "2.weight"} if decays else set())


# decouple_lr.


def decay_of(weight, optimizer):
    """Share that one step without gradient takes off a weight."""
    before = weight.detach().clone()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return (1 - weight / before).mean().item()


@pytest.mark.filterwarnings("ignore:.*decouple_lr:hub.HubWarning")
@pytest.mark.parametrize(
    ("arguments", "rule", "share"),
    [
        ({}, {"lr": 0.001}, 1.0),
        ({}, {"lr_scale": 0.1}, 1.0),
        ({"max_lr": 0.05}, {"lr_scale": 0.1}, 0.2),
        ({"max_lr": 0.05}, {"eps": 1e-5}, 0.2),
        ({"max_lr": 0.05}, {"max_lr": 0.02}, 0.5),
        ({"max_lr": 0.05}, {"lr": 0.001, "max_lr": 0.002}, 0.5),
        ({"max_lr": 0.05}, {"lr": 0.0}, 0.0),
    ],
    ids=str,
)
def test_decoupled_decay_is_relative_to_the_groups_own_learning_rate(arguments, rule, share):
    model = make_model().double()
    optimizer = build(model, decouple_lr=True, param_rules={"0": rule}, **arguments)
    assert decay_of(model[0].weight, optimizer) == pytest.approx(0.1 * share, rel=1e-9)


@pytest.mark.filterwarnings("ignore:.*decouple_lr:hub.HubWarning")
def test_decoupled_decay_of_a_late_group_is_relative_to_its_own_learning_rate():
    late = nn.Linear(4, 4, bias=False).double()
    optimizer = build(make_model(), decouple_lr=True)
    optimizer.add_param_group({"params": [late.weight], "param_names": ["late"], "lr": 0.001})
    assert decay_of(late.weight, optimizer) == pytest.approx(0.1, rel=1e-9)


def test_the_bare_class_decays_such_a_group_at_another_rate():
    """When this fails, `factory.StableAdamW._max_lr` is not needed any more."""
    weight = nn.Parameter(torch.ones(4, dtype=torch.float64))
    arguments = {"lr": 0.01, "weight_decay": 0.1, "decouple_lr": True, "triton": False}
    with pytest.warns(UserWarning, match="potentially high"):
        optimizer = optimi.StableAdamW([{"params": [weight], "lr": 0.001}], **arguments)
    assert decay_of(weight, optimizer) == pytest.approx(0.01, rel=1e-9)


def test_high_decoupled_decay_is_warned_of_by_hub_alone():
    with pytest.warns(hub.HubWarning, match="weight_decay=0.1 in every step") as seen:
        build(make_model(), decouple_lr=True)
    assert len(seen) == 1
    assert "weight_decay=0.001 decays as much" in str(seen[0].message)


def test_upstream_is_as_it_was_read():
    """What is declared for it: `packaging` is not."""
    from importlib.metadata import requires, version

    assert version("torch-optimi").startswith("0.3.")
    assert not any("packaging" in requirement for requirement in requires("torch-optimi"))
    assert find_spec("packaging")
