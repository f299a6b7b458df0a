"""What bitsandbytes cannot do is refused; and what it does on CUDA."""

import pytest
import torch
from bitsandbytes import cextension
from hub_bitsandbytes import hooks
from hub_bitsandbytes.names import ROWS
from torch import nn

import hub
from hub.spec import BuildContext, Level, ParameterGroup, Precision
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import train

from .wrapped import (
    BF16,
    FP16,
    FP32,
    PAGED,
    Model,
    build,
    by_hand,
    narrow_weights,
    plainly,
)

pytestmark = narrow_weights
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def test_sparse_gradients_are_refused():
    model = Model()
    model.embed.sparse = True
    with pytest.raises(hub.UnsupportedError, match="sparse") as refused:
        build("adamw_8bit", model)
    assert refused.value.where == "embed"
    model.embed.requires_grad_(requires_grad=False)
    build("adamw_8bit", model)


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
    optim_args = hub.describe(name).arguments(**arguments)
    return list(hooks.hub_validate_precision(name=name, optim_args=optim_args, context=context))


LARGE, SMALL = 10_000, 10


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
