"""What a model trains in, and what hub says about it."""

import pytest
import torch
from torch import nn

import hub

STALL = "round to zero"


def told(plan):
    return [(finding.level, finding.what) for finding in plan.findings]


def linear(dtype=torch.float32, weight=0.02):
    model = nn.Linear(64, 64, dtype=dtype)
    nn.init.constant_(model.weight, weight)
    return model


@pytest.mark.parametrize(
    ("declared", "mode"),
    [
        (None, "fp32"),
        ("fp32", "fp32"),
        ("32-true", "fp32"),
        ("bf16-mixed", "bf16-mixed"),
        ("fp16-mixed", "fp16-mixed"),
        ("16-mixed", "fp16-mixed"),
    ],
)
def test_modes_of_fp32_parameters(declared, mode):
    plan = hub.plan("adamw_torch", linear(), precision=declared)
    assert plan.precision.mode == mode
    assert plan.precision.grad_scaler == (mode == "fp16-mixed")
    assert plan.findings == ()


def test_found_from_trainable_parameters_only():
    model = nn.Sequential(linear(torch.bfloat16), linear().requires_grad_(False))
    assert hub.plan("adamw_torch", model, lr=1.0).precision.dtypes == ("bf16",)


def test_a_declaration_that_the_parameters_contradict_is_told():
    plan = hub.plan("adamw_torch", linear(torch.bfloat16), precision="bf16-mixed", lr=1.0)
    assert told(plan) == [
        (
            "warn",
            "precision='bf16-mixed' keeps the weights in fp32, but most parameters of this model "
            "are bf16",
        )
    ]


@pytest.mark.parametrize(
    ("dtype", "lr", "weight", "stalls"),
    [
        (torch.bfloat16, 1e-3, 1.0, True),
        (torch.bfloat16, 1e-3, 0.02, False),
        (torch.bfloat16, 2e-5, 0.02, True),
        (torch.float32, 1e-9, 1.0, False),
    ],
)
def test_stalling_is_told_where_it_happens(dtype, lr, weight, stalls):
    """The rule is held against the real thing: after 20 steps, do the weights move?"""
    model = linear(dtype, weight)
    plan = hub.plan("adamw_torch", model, lr=lr, weight_decay=0.0)
    assert any(STALL in what for _, what in told(plan)) == stalls
    if dtype is torch.bfloat16:
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        before = model.weight.clone()
        for _ in range(20):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
        assert torch.equal(before, model.weight) == stalls


def test_the_largest_learning_rate_of_all_groups_counts():
    model = nn.Sequential(linear(torch.bfloat16), linear(torch.bfloat16))
    plan = hub.plan("adamw_torch", model, lr=1e-6, param_rules={"1.weight": {"lr": 1e-2}})
    assert told(plan) == []


def test_on_the_meta_device_a_usual_weight_is_assumed():
    with torch.device("meta"):
        model = nn.Linear(8, 8, dtype=torch.bfloat16)
    plan = hub.plan("adamw_torch", model, lr=1e-5)
    assert STALL in told(plan.materialized())[0][1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_on_cuda():
    assert hub.plan("adamw_torch", linear().cuda()).precision.devices == ("cuda",)


@pytest.mark.parametrize("name", ["adamw_torch_fused", "sgd", "adagrad"])
@pytest.mark.parametrize(
    ("cut", "refused"),
    [
        (lambda whole: whole[:, :8], True),
        (lambda whole: whole[::2], True),
        (lambda whole: whole.t()[:5], True),
        (lambda whole: whole[2:4], False),
        (lambda whole: whole.t(), False),
        (lambda whole: whole[:0], False),
    ],
    ids=["columns", "every other row", "of the transposed", "rows", "transposed", "nothing"],
)
def test_torch_writes_outside_of_slices_that_it_updates_fused(name, cut, refused):
    """In torch 2.13, as the second half shows; when that fails there is nothing to refuse."""
    model = nn.ParameterList([nn.Parameter(cut(torch.ones(64, 64)))])
    assert hub.plan(name, model, fused=True).refused == refused
    assert not hub.plan(name, model, fused=False).refused
    whole = torch.ones(64, 64)
    parameter = nn.Parameter(cut(whole))
    parameter.grad = torch.ones_like(parameter)
    cls = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}.get(name, torch.optim.AdamW)
    cls([parameter], lr=0.1, fused=True).step()
    assert ((whole != 1).sum() != (parameter != 1).sum()) == refused
