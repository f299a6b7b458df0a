"""Compiled steps of the torchao names, and where they cannot be."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import hub
from hub import backend
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import gradients, small_model, train

from .wrapped import (
    ARGUMENTS,
    Small,
    bf16_weights,
    both_dtypes,
    build,
    by_hand,
    compiled,
    every_name,
    resumed,
)

pytestmark = bf16_weights
update = backend.load("hub_torchao.update")


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
    assert_same(train(*resumed(name, saved, Small(dtype)), range(3, 6)), straight)
    assert_same(train(model, optimizer, range(3, 6)), straight)


def counted(monkeypatch):
    """Have updates compiled by a backend that counts, and runs them eagerly."""
    counter = CompileCounter()
    again = torch.compile(update._step, backend=counter, fullgraph=True, dynamic=False)
    monkeypatch.setattr(update, "_compiled", lambda _: again)
    return counter


@compiled
@every_name
def test_all_shapes_and_groups_share_two_kernels(name, monkeypatch):
    counter = counted(monkeypatch)
    model = small_model(widths=(64, 64, 128, 96, 3))
    rules = {"0": {"weight_decay": 0.5, "eps": 1e-3}, "2": {"lr_scale": 2.0}}
    optimizer = build(name, model, param_rules=rules)
    for step in range(3):
        gradients(model, step)
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = float(group["lr"]) * 0.9
    assert counter.frame_count == 2


@every_name
@both_dtypes
def test_weights_in_another_order_of_memory_are_updated_as_upstreams(name, dtype):
    models = [small_model(dtype, widths=(64, 48, 3)) for _ in range(2)]
    for model in models:
        for layer in (model[0], model[2]):
            layer.weight.data = layer.weight.data.T.contiguous().T
    assert not models[0][0].weight.is_contiguous()
    train(models[0], build(name, models[0]), range(3))
    assert_same(models[0], train(models[1], by_hand(name, models[1]), range(3)))


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
