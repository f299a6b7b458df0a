"""What flashoptim can do depends on where the parameters are: turned off, warned of or refused."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from hub_flashoptim import findings, hooks
from torch import nn

import hub
from hub.spec import Level, ParameterGroup, Precision
from hub.testing.upstream import small_model, train

from .wrapped import (
    BF16,
    FP32,
    ON_CPU,
    build,
    every_name,
    no_master_weights,
)

pytestmark = no_master_weights

LOUD, QUIET = Level.ADJUST, Level.NOTE


@pytest.mark.parametrize(
    ("device", "dtype", "asked", "expected"),
    [
        ("cpu", FP32, {}, {"master_weight_bits": LOUD, "quantize": QUIET, "fused": QUIET}),
        ("cpu", BF16, {}, {"master_weight_bits": LOUD, "quantize": QUIET, "fused": QUIET}),
        ("cpu", FP32, {"master_weight_bits": None}, {"quantize": QUIET, "fused": QUIET}),
        ("cpu", FP32, {"optim_args": "master_weight_bits=None, fused=false"}, {"quantize": QUIET}),
        (
            "cpu",
            FP32,
            {"quantize": True, "fused": True, "master_weight_bits": 32},
            {"master_weight_bits": LOUD, "quantize": LOUD, "fused": LOUD},
        ),
        ("cpu", FP32, ON_CPU, {}),
        ("meta", FP32, {}, {"master_weight_bits": LOUD}),
        ("meta", BF16, {}, {}),
        ("meta", BF16, {"quantize": True, "fused": True, "master_weight_bits": 24}, {}),
    ],
)
@every_name
def test_what_the_parameters_cannot_have_is_turned_off(name, device, dtype, asked, expected):
    plan = hub.plan(name, small_model(dtype).to(device), **asked)
    turned_off = {key: finding.level for finding in plan.findings for key in finding.instead}
    assert turned_off == expected
    values = {argument.name: argument.value for argument in plan.arguments}
    for key in expected:
        assert values[key] == ON_CPU[key]


@every_name
def test_the_device_of_the_parameters_decides_not_the_machine(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = small_model()
    train(model, build(name, model), range(2))


@pytest.mark.parametrize(
    ("dtype", "says"),
    [(FP32, "fp32 parameters have 32 bits already"), (BF16, "half the spacing of bf16 weights")],
)
def test_turning_master_weights_off_is_warned_about(dtype, says):
    with pytest.warns(hub.HubWarning, match=says) as caught:
        hub.build("flash_adamw", small_model(dtype))
    assert len(caught) == 1


def test_narrow_weights_without_master_weights_are_warned_about_by_hub_alone():
    """Where the learning rate is too small for them, and nowhere else."""
    with pytest.warns(hub.HubWarning, match="round to zero") as caught:
        hub.build("flash_adamw", small_model(BF16), lr=1e-6, master_weight_bits=None)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub.build("flash_adamw", small_model(BF16), lr=1e-2, master_weight_bits=None)


def test_fp32_weights_without_master_weights_are_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub.build("flash_adamw", small_model(), optim_args="master_weight_bits=None")


def test_weights_that_are_not_contiguous_turn_the_fused_kernel_off():
    model = nn.Conv2d(3, 4, 3).to("meta", BF16).to(memory_format=torch.channels_last)
    for asked, level in (({}, QUIET), ({"fused": True}, LOUD)):
        (finding,) = hub.plan("flash_adamw", model, **asked).materialized().findings
        assert (finding.level, finding.instead) == (level, {"fused": False})
        assert "'weight' is not contiguous" in finding.what


def test_quantized_state_of_uneven_shards_is_refused():
    uneven = SimpleNamespace(
        device=torch.device("cuda", 0),
        is_contiguous=lambda: True,
        shape=(8, 2),
        device_mesh=SimpleNamespace(size=lambda _: 16),
        placements=[SimpleNamespace(dim=0)],
    )
    context = hub.BuildContext(
        model=nn.Module(),
        groups=(ParameterGroup(name="all", parameters=(("weight", uneven),), overrides={}),),
        precision=Precision(mode="bf16", dtypes=("bf16",), devices=("cuda",)),
    )

    def refusals(**arguments):
        optim_args = hub.describe("flash_adamw").arguments(**arguments)
        return [*findings.uneven_shards("flash_adamw", optim_args, (), context)]

    (refused,) = refusals()
    assert "8 rows or columns that is sharded" in refused.what
    assert refused.where == "weight"
    assert not refusals(compress_state_dict=False)
    assert not refusals(quantize=False)


def test_another_gpu_than_the_current_one_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    elsewhere = SimpleNamespace(
        device=torch.device("cuda", 1), is_contiguous=lambda: True, shape=(2, 2)
    )
    context = hub.BuildContext(
        model=nn.Module(),
        groups=(ParameterGroup(name="all", parameters=(("weight", elsewhere),), overrides={}),),
        precision=Precision(mode="bf16", dtypes=("bf16",), devices=("cuda",)),
    )

    def found(**arguments):
        optim_args = hub.describe("flash_adamw").arguments(**arguments)
        return hooks.hub_validate_precision("flash_adamw", optim_args, context)

    (refused,) = found(quantize=False, fused=False)
    assert refused.error is hub.UnsupportedError
    assert "current GPU, 0, and the model has parameters on cuda:1" in refused.what
    assert [f.level for f in found(**ON_CPU)] == [hub.Level.NOTE]
