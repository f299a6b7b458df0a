"""`adamw_torch_fused` with moments in bf16."""

import copy
from contextlib import nullcontext as _nothing
from functools import partial

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import continues, gradients, groups_of, small_model, train

OWN = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
NARROW = {**OWN, "state_dtype": "bf16"}
build = partial(hub.build, "adamw_torch_fused")
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def rounding_after_each_step(model, steps, **arguments):
    """Train with torch's class by hand, and round the moments to bf16 numbers after each step."""
    optimizer = torch.optim.AdamW(groups_of(model), fused=True, **{**OWN, **arguments})
    for step in steps:
        train(model, optimizer, [step])
        for state in optimizer.state.values():
            for key in MOMENTS:
                if key in state:
                    state[key].copy_(state[key].bfloat16())
    return model


@pytest.mark.parametrize(
    "arguments", [{}, {"amsgrad": True}, {"maximize": True}, {"eps": 1e-3}], ids=str
)
@pytest.mark.parametrize("widths", [(16, 32, 8), (1024, 1024, 64)], ids=str)
def test_an_update_is_computed_in_fp32_and_the_moments_are_rounded(arguments, widths):
    ours, theirs = small_model(widths=widths), small_model(widths=widths)
    optimizer = build(ours, **NARROW, **arguments)
    train(ours, optimizer, range(6))
    assert_same(ours, rounding_after_each_step(theirs, range(6), **arguments))
    keys = MOMENTS if arguments.get("amsgrad") else MOMENTS[:2]
    for state in optimizer.state.values():
        assert {key: state[key].dtype for key in state} == {
            "step": torch.float32,
            **dict.fromkeys(keys, torch.bfloat16),
        }


def test_without_it_the_class_is_torchs():
    assert type(build(small_model(), **OWN)) is torch.optim.AdamW


def test_the_kernel_for_cpus_takes_no_bf16_moments():
    """When this fails, `NarrowAdamW._step_copies` is not needed any more."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    train(model, optimizer, [0])
    for state in optimizer.state.values():
        state.update({key: state[key].bfloat16() for key in MOMENTS if key in state})
    with pytest.raises(RuntimeError, match="expected scalar type"):
        train(model, optimizer, [1])


@pytest.mark.parametrize("amsgrad", [False, True])
def test_it_resumes_exactly(amsgrad):
    _, optimizer = continues(build, build, **NARROW, amsgrad=amsgrad)
    assert all(state["exp_avg"].dtype is torch.bfloat16 for state in optimizer.state.values())


def test_fp32_moments_of_an_earlier_run_are_rounded():
    model, fresh = small_model(), small_model()
    optimizer = build(model, **OWN)
    train(model, optimizer, range(3))
    again = build(fresh, **NARROW)
    with pytest.warns(hub.HubWarning, match="state_dtype"):
        again.load_state_dict(optimizer.state_dict())
    kept, found = optimizer.state[model[0].weight], again.state[fresh[0].weight]
    for key in MOMENTS[:2]:
        assert torch.equal(found[key], kept[key].bfloat16())


def test_the_upstream_class_continues_it_in_fp32():
    model, fresh = small_model(), small_model()
    optimizer = build(model, **NARROW)
    train(model, optimizer, range(3))
    fresh.load_state_dict(model.state_dict())
    reference = torch.optim.AdamW(groups_of(fresh), fused=True, **OWN)
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert reference.state[fresh[0].weight]["exp_avg"].dtype is torch.float32
    assert_same(train(fresh, reference, [3]), train(model, optimizer, [3]))


def test_infinite_gradients_of_a_scaler_are_skipped():
    model = small_model()
    optimizer = build(model, **NARROW)
    train(model, optimizer, [0])
    before = copy.deepcopy(model.state_dict())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    gradients(model, 1)
    model[0].weight.grad[0, 0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(state["step"] == 1 for state in optimizer.state.values())


def test_parameters_of_other_dtypes_keep_theirs():
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4).bfloat16(), nn.Linear(4, 4).double()])
    optimizer = build(model, **NARROW)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    found = [optimizer.state[layer.weight]["exp_avg"].dtype for layer in model]
    assert found == [torch.bfloat16, torch.bfloat16, torch.float64]


def test_the_estimate_is_half():
    model = small_model()
    elements, steps = sum(p.numel() for p in model.parameters()), 4 * len(list(model.parameters()))
    assert hub.estimate("adamw_torch_fused", model, **NARROW).state == 4 * elements + steps
    assert hub.estimate("adamw_torch_fused", model, **OWN).state == 8 * elements + steps


def test_the_layerwise_form_is_the_same():
    eager, inside = small_model(), small_model()
    optimizer = hub.build("adamw_torch_fused_layerwise", inside, **NARROW)
    train(eager, build(eager, **NARROW), range(3))
    for step in range(3):
        gradients(inside, step)
        optimizer.step()
    assert_same(inside, eager)


@pytest.mark.parametrize(
    ("dtype", "arguments", "expected"),
    [
        (torch.float32, NARROW, ("note", "moments of fp32 weights are rounded")),
        (torch.float32, {**NARROW, "betas": (0.9, 0.999)}, ("warn", "hardly fall at beta2=0.999")),
        (torch.bfloat16, NARROW, ("warn", "does nothing: no parameter is fp32")),
        (torch.float32, OWN, None),
    ],
    ids=["right", "beta2", "bf16", "without"],
)
def test_the_plan_says_what_it_rounds(dtype, arguments, expected):
    plan = hub.plan("adamw_torch_fused", small_model(dtype), **arguments)
    found = [(f.level.value, f.what) for f in plan.findings if "moments" in f.what]
    assert [level for level, _ in found] == ([expected[0]] if expected else [])
    assert not found or expected[1] in found[0][1]


def test_a_rule_with_a_large_second_beta_is_found_too():
    rules = {"0": {"betas": (0.9, 0.998)}}
    plan = hub.plan("adamw_torch_fused", small_model(), param_rules=rules, **NARROW)
    assert any("beta2=0.998" in finding.what for finding in plan.findings)


@pytest.mark.parametrize(("second", "falls"), [(0.999, False), (0.95, True)])
def test_second_moments_fall_only_with_a_small_beta(second, falls):
    model = nn.Linear(8, 8, bias=False)
    with pytest.warns(hub.HubWarning, match="hardly") if second > 0.99 else _nothing():
        optimizer = build(model, **{**NARROW, "betas": (0.9, second)})
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    before = optimizer.state[model.weight]["exp_avg_sq"].clone()
    model.weight.grad.zero_()
    for _ in range(20):
        optimizer.step()
    after = optimizer.state[model.weight]["exp_avg_sq"]
    assert torch.equal(after, before) is not falls


def test_it_takes_the_fused_kernel():
    with pytest.raises(hub.OptimArgsError, match="takes fused=True"):
        build(small_model(), **NARROW, fused=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_the_kernel_for_cuda_does_the_same():
    here, there = small_model(), small_model().cuda()
    train(here, build(here, **NARROW), range(5))
    optimizer = build(there, **NARROW)
    train(there, optimizer, range(5))
    assert optimizer.state[there[0].weight]["exp_avg_sq"].dtype is torch.bfloat16
    for name, value in here.state_dict().items():
        torch.testing.assert_close(there.state_dict()[name].cpu(), value, atol=1e-4, rtol=0)
