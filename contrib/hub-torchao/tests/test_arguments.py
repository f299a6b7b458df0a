"""The arguments of the torchao names are upstream's, and wrong ones are refused."""

import re

import pytest
import torch
import torchao.optim
from torch import nn

import hub
from hub.spec import Level
from hub.testing.upstream import (
    arguments_match,
    builds_quietly,
    imports_nothing,
    train,
)

from .wrapped import QUANTIZED, WRAPPED, build, by_hand, every_name, make_model


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    arguments_match(name, WRAPPED[name].cls, {"amsgrad"})


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_torchao.hooks")


def test_the_first_build_leaves_the_process_as_it_is():
    builds_quietly("adamw_torch_4bit", "torch", "torch.utils._pytree", "sympy", "torchao")


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
        hub.build(name, make_model(), **arguments)


def test_an_odd_block_size_fails_in_upstreams_4_bit():
    weight = nn.Parameter(torch.ones(241, 17))
    optimizer = torchao.optim.AdamW4bit([weight], block_size=17)
    weight.grad = torch.ones_like(weight)
    with pytest.raises(RuntimeError):
        optimizer.step()


@every_name
def test_amsgrad_is_refused_as_upstream_cannot_take_its_first_step(name):
    model = make_model()
    with pytest.raises(NotImplementedError):
        train(model, by_hand(name, model, amsgrad=True), [0])
    with pytest.raises(hub.OptimArgsError, match="no argument 'amsgrad'"):
        build(name, model, amsgrad=True)


@every_name
def test_fp16_weights_are_refused_as_upstream_takes_too_long_steps(name):
    def moved(dtype):
        bias = nn.Parameter(torch.zeros(64, dtype=dtype))
        optimizer = WRAPPED[name].cls([bias], lr=1e-2)
        for _ in range(20):
            bias.grad = torch.full_like(bias, 1e-4)
            optimizer.step()
        return -bias.mean().item()

    assert moved(torch.float32) == pytest.approx(20 * 1e-2, rel=1e-2)
    assert moved(torch.float16) > 2.5 * 20 * 1e-2
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(hub.PrecisionError, match="does not train correctly"):
            build(name, make_model(dtype))


@pytest.mark.parametrize(
    ("name", "block_size", "large"),
    [
        ("adamw_torch_4bit", 128, None),
        ("adamw_torch_8bit", 8192, r"0\.weight, 32% of all"),
        ("adamw_torch_8bit", 1000, r"0\.weight and 1 more, 95% of all"),
    ],
)
def test_the_plan_notes_what_is_large_and_not_quantized(name, block_size, large):
    model = make_model()
    findings = hub.plan(name, model, block_size=block_size).findings
    assert [finding.level for finding in findings] == ([Level.NOTE] if large else [])
    optimizer = build(name, model, block_size=block_size)
    train(model, optimizer, [0])
    is_quantized = type(optimizer.state[model[0].weight]["exp_avg"]) is QUANTIZED[name]
    assert is_quantized == (large is None)
    if large:
        assert re.search(large, findings[0].what)
