"""`adamw_torch` with a compiled update."""

from functools import partial

import pytest
import torch

import hub
from hub.builtin import compiled
from hub.testing.comparing import assert_close, assert_same
from hub.testing.upstream import (
    compilations,
    continues,
    gradients,
    groups_of,
    small_model,
    train,
)
from hub.updates import compiling

OWN = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}
build = partial(hub.build, "adamw_torch", **OWN, compile=True)
ALIKE = (16,) * 7

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@pytest.fixture
def counter():
    with compilations(compiled._step) as counts:
        yield counts


def by_hand(model, **arguments):
    return torch.optim.AdamW(groups_of(model), **{**OWN, "foreach": False, **arguments})


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
    ids=str,
)
@pytest.mark.parametrize("maximize", [False, True])
def test_it_is_torchs_update_but_for_rounding(dtype, tolerance, maximize):
    ours, theirs = small_model(dtype, ALIKE), small_model(dtype, ALIKE)
    optimizer = build(ours, maximize=maximize)
    train(ours, optimizer, range(6))
    assert_close(ours, train(theirs, by_hand(theirs, maximize=maximize), range(6)), tolerance)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_neither_shapes_nor_rates_nor_betas_compile_again(counter):
    model = small_model(widths=(16, 32, 24, 8))
    optimizer = build(model, param_rules={"0": {"eps": 1e-3, "lr_scale": 0.5}})
    for step in range(5):
        train(model, optimizer, [step])
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
            group["betas"] = (0.8, 0.95 - step / 100)
    assert counter.frame_count == 1


def test_each_dtype_compiles_once(counter):
    model = torch.nn.ModuleList([small_model(), small_model(torch.bfloat16)])
    optimizer = build(model)
    for step in range(3):
        for part in model:
            gradients(part, step)
        optimizer.step()
    assert counter.frame_count == 2


@pytest.mark.usefixtures("counter")
def test_it_resumes_exactly_and_torchs_class_continues_it():
    _, optimizer = continues(build, build)
    assert {key for state in optimizer.state.values() for key in state} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
    assert "compile" not in optimizer.param_groups[0]
    continues(by_hand, build, by_hand, steps=0)


@pytest.mark.usefixtures("counter")
def test_weights_in_another_order_of_memory_are_updated():
    ours, theirs = small_model(), small_model()
    for model in (ours, theirs):
        model[0].weight.data = model[0].weight.data.T.contiguous().T
    train(ours, build(ours), range(3))
    assert_close(ours, train(theirs, by_hand(theirs), range(3)), 1e-5)


@pytest.mark.usefixtures("counter")
def test_parameters_that_join_late_have_their_own_count():
    ours, theirs = small_model(), small_model()
    runs = [(ours, build(ours)), (theirs, by_hand(theirs))]
    for model, optimizer in runs:
        for step in range(4):
            gradients(model, step)
            if step < 2:
                model[0].weight.grad = None
            optimizer.step()
    assert_close(ours, theirs, 1e-5)


def test_kernels_of_the_compiler_do_the_same_alone_and_together():
    together, apart, theirs = (small_model(widths=(16,) * 4) for _ in range(3))
    train(together, build(together), range(3))
    optimizer = build(apart)
    for step in range(3):
        gradients(apart, step)
        whole = [dict(group) for group in optimizer.param_groups]
        for index in range(max(len(group["params"]) for group in whole)):
            for group, kept in zip(optimizer.param_groups, whole, strict=True):
                part = slice(index, index + 1)
                group.update({key: kept[key][part] for key in ("params", "param_names")})
            optimizer.step()
        for group, kept in zip(optimizer.param_groups, whole, strict=True):
            group.update(kept)
    assert_same(together, apart)
    assert_close(together, train(theirs, by_hand(theirs), range(3)), 1e-5)


@pytest.mark.parametrize("key", ["foreach", "fused", "amsgrad", "differentiable"])
def test_it_replaces_other_implementations(key):
    with pytest.raises(hub.OptimArgsError, match=f"cannot be combined with {key}=True"):
        build(small_model(), **{key: True})


def test_a_rule_with_amsgrad_is_refused():
    with pytest.raises(hub.OptimArgsError, match="cannot be combined with amsgrad"):
        build(small_model(), param_rules={"0": {"amsgrad": True}})


def test_the_plan_says_what_compiles():
    plan = hub.plan("adamw_torch", small_model(), compile=True)
    (found,) = [finding for finding in plan.findings if "compiles" in finding.what]
    assert "compiles 1 kernel, one for each dtype" in found.what
    plan = hub.plan("adamw_torch", small_model())
    assert not any("compiles" in finding.what for finding in plan.findings)


NO_COMPILER = {"cpp.cxx": (None, "no-such-compiler")}


def test_it_is_refused_without_a_compiler():
    with torch._inductor.config.patch(NO_COMPILER):
        with pytest.raises(hub.UnsupportedError, match=r"C\+\+ compiler") as refused:
            build(small_model())
        assert refused.value.fix == "install g++ or set CXX, or leave out compile=True"
        hub.build("adamw_torch", small_model())


def test_it_is_refused_where_compiling_is_switched_off():
    off = torch._dynamo.config.patch(disable=True)  # TORCH_COMPILE_DISABLE=1
    with off, pytest.raises(hub.UnsupportedError, match="TORCH_COMPILE_DISABLE"):
        build(small_model())


def test_what_compiles_nothing_needs_no_compiler(monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    with torch._inductor.config.patch(NO_COMPILER):
        model = small_model()
        train(model, build(model), range(2))


def test_missing_triton_is_a_problem_on_cuda(monkeypatch):
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    assert not list(compiling.problems(("cpu",)))
    ((problem, _),) = compiling.problems(("cuda",))
    assert "needs triton" in problem


def test_without_it_the_class_is_torchs():
    assert type(hub.build("adamw_torch", small_model())) is torch.optim.AdamW
