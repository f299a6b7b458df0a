"""Compiled steps of the torchao names, and where they cannot be."""

import pytest
import torch
from torch import nn

import hub
from hub import backend
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import gradients, train

from .wrapped import ARGUMENTS, Small, bf16_weights, build, by_hand, compiled, resumed

pytestmark = bf16_weights
compilers = backend.load("hub_torchao.compilers")


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


def test_missing_triton_is_refused_on_cuda(monkeypatch):
    monkeypatch.setattr(compilers, "has_triton", lambda: False)
    assert not list(compilers.problems(("cpu",)))
    ((problem, _),) = compilers.problems(("cuda",))
    assert "needs triton" in problem
