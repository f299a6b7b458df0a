"""`lomo` and `adalomo` train as lomo_optim's classes do, to the last bit.

hub clips gradients in their own dtype and upstream in fp32, so clipping in bf16 is not compared,
but for limits that bf16 can express.
"""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import loss_at, small_model

from .wrapped import LR, THEIRS, bf16_weights, build, every_dtype, every_name, matrices, rate

pytestmark = bf16_weights


@pytest.fixture
def _cuda_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)


AS_UPSTREAM = [
    pytest.param("lomo", {}, id="lomo"),
    pytest.param("lomo", {"weight_decay": 0.3}, id="lomo-decay"),
    pytest.param("lomo", {"clip_grad_value": 2.0**-8}, id="lomo-value"),
    pytest.param("adalomo", {}, id="adalomo"),
    pytest.param("adalomo", {"weight_decay": 0.3}, id="adalomo-decay"),
    pytest.param("adalomo", {"clip_grad_value": 2.0**-8}, id="adalomo-value"),
    pytest.param("adalomo", {"eps": (1e-6, 0.5)}, id="adalomo-eps"),
    pytest.param("adalomo", {"clip_threshold": 0.5, "decay_rate": -0.5}, id="adalomo-rates"),
]


def theirs_after(name, model, steps, arguments):
    optimizer = THEIRS[name](model, **arguments)
    for step in range(steps):
        loss = loss_at(model, step)
        if "clip_grad_norm" in arguments:
            optimizer.grad_norm(loss)
            add_up_by_groups(optimizer)
        optimizer.fused_backward(loss, rate(step))
    return model


def add_up_by_groups(optimizer):
    """Have upstream add up norms in hub's order; its own is that in which gradients arrive.

    `LOMO.grad_norm` and `AdaLomo.grad_norm` of lomo-optim 0.1.1 end with this formula.
    """
    whole = torch.norm(optimizer.grad_norms.flip(0), 2.0)
    coefficient = torch.clamp(float(optimizer.clip_grad_norm) / (whole + 1e-6), max=1.0)
    # Two roundings of the sum of squares, and one each of its root, of 1e-6 more, of the quotient.
    assert coefficient.item() == pytest.approx(optimizer.clip_coef.item(), rel=4 * 2**-23)
    optimizer.clip_coef = coefficient


@pytest.mark.usefixtures("_cuda_is_the_cpu")
@every_dtype
@pytest.mark.parametrize(("name", "arguments"), AS_UPSTREAM)
def test_twenty_steps_are_upstreams(name, arguments, dtype):
    model = (matrices if "weight_decay" in arguments else small_model)(dtype)
    theirs = theirs_after(name, copy.deepcopy(model), 20, arguments)
    fused = copy.deepcopy(model)
    optimizer = build(name, fused, **arguments)
    for step in range(20):
        optimizer.fused_backward(loss_at(fused, step), rate(step))
    assert_same(fused, theirs)

    plain = copy.deepcopy(model)
    optimizer = build(name, plain, **arguments)
    for step in range(20):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss_at(plain, step).backward()
        optimizer.step()
    assert_same(plain, theirs)


@pytest.mark.usefixtures("_cuda_is_the_cpu")
@every_name
@pytest.mark.parametrize("measured", [True, False], ids=["grad_norm", "by itself"])
def test_the_clip_norm_is_upstreams(name, measured):
    model = matrices()
    theirs = theirs_after(name, copy.deepcopy(model), 20, {"clip_grad_norm": 0.1})
    optimizer = build(name, model, max_grad_norm=0.1, clipping="exact")
    passes = []
    model[0].weight.register_hook(passes.append)
    for step in range(20):
        loss = loss_at(model, step)
        if measured:
            optimizer.grad_norm(loss)
        optimizer.fused_backward(loss, rate(step))
    assert len(passes) == 2 * 20
    assert_same(model, theirs)


@every_name
def test_groups_keep_their_share_of_a_given_lr(name):
    model = small_model()
    optimizer = build(name, model, param_rules={"2": {"lr_scale": 0.25}})
    first = [group["lr"] for group in optimizer.param_groups]
    assert first == [LR, LR, LR / 4, LR / 4]
    for lr in (0.0, 0.1, LR, 0.03):
        optimizer.fused_backward(loss_at(model, 0), lr)
        assert [g["lr"] for g in optimizer.param_groups] == [lr, lr, lr / 4, lr / 4]


@every_name
def test_a_given_lr_is_everyones_where_the_first_was_zero(name):
    model = small_model()
    optimizer = build(name, model, lr=0.0)
    optimizer.fused_backward(loss_at(model, 0), 0.1)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


@settings(deadline=None)  # the first build of all may take long
@given(
    lr=st.floats(max_value=1e30)
    | st.just(math.inf)
    | st.text(max_size=3)
    | st.booleans()
    | st.just([0.1])
)
def test_a_given_lr_is_a_number_from_zero_on_or_refused(lr):
    model = small_model()
    optimizer = build("lomo", model)
    before = weights(model)
    good = isinstance(lr, float) and 0 <= lr < math.inf
    if good:
        optimizer.fused_backward(loss_at(model, 0) * 0, lr)
        assert optimizer.param_groups[0]["lr"] == lr
    elif not isinstance(lr, str):  # text is read as in optim_args
        with pytest.raises(hub.OptimArgsError, match="lr="):
            optimizer.fused_backward(loss_at(model, 0), lr)
        assert not moved(model, before)


@every_name
def test_a_group_decays_by_its_own_value(name):
    model = matrices()
    rules = {"0": {"weight_decay": 0.5}}
    optimizer = build(name, model, weight_decay=0.0, param_rules=rules)
    before = weights(model)
    (loss_at(model, 0) * 0).backward()
    optimizer.step()
    assert moved(model, before) == {"0.weight"}


SHAPES = [
    pytest.param((), {"exp_avg_sq": ()}, id="0d"),
    pytest.param((6,), {"exp_avg_sq": (6,)}, id="1d"),
    pytest.param((6, 4), {"exp_avg_sq_row": (6,), "exp_avg_sq_col": (4,)}, id="2d"),
    pytest.param((6, 4, 3), {"exp_avg_sq_row": (6, 4), "exp_avg_sq_col": (6, 3)}, id="conv1d"),
    pytest.param(
        (6, 4, 3, 2), {"exp_avg_sq_row": (6, 4, 3), "exp_avg_sq_col": (6, 4, 2)}, id="conv2d"
    ),
]


@every_name
@every_dtype
@pytest.mark.parametrize(("shape", "moments"), SHAPES)
def test_every_shape_trains(name, shape, moments, dtype):
    model = nn.ParameterDict({"weight": torch.full(shape, 2.0, dtype=dtype)})
    optimizer = build(name, model, lr=0.1)
    for _ in range(20):
        model["weight"].float().square().sum().backward()
        optimizer.step()
    assert model["weight"].abs().max() < 1.9
    state = optimizer.state[model["weight"]]
    if name == "lomo":
        assert not state
    else:
        assert state.pop("step") == 20
        assert {key: tuple(value.shape) for key, value in state.items()} == moments
        assert {value.dtype for value in state.values()} == {torch.float32}


def test_the_factors_of_a_convolution_are_those_of_its_slices():
    weight = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    whole = nn.ParameterDict({"weight": weight.clone()})
    slices = nn.ParameterDict({str(i): part.clone() for i, part in enumerate(weight)})
    # Without the limits on whole tensors, and with one scale for all of them.
    arguments = {"clip_threshold": 1e9, "eps": (1e-30, 1e3), "lr": 1e-5}
    ours, theirs = build("adalomo", whole, **arguments), build("adalomo", slices, **arguments)
    for _ in range(3):
        whole["weight"].pow(4).sum().backward()
        sum(slices[key].pow(4).sum() for key in slices).backward()
        ours.step()
        theirs.step()
    torch.testing.assert_close(whole["weight"], torch.stack(list(slices.values())))
