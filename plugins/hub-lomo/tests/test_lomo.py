"""`lomo` and `adalomo` against lomo_optim's own classes, which run on a CPU once `.cuda()` is out.

Where both compute the same, they arrive at the same weights to the last bit. hub clips gradients in
their own dtype and upstream in fp32, so clipping in bf16 is not compared, but for limits that bf16
can express.
"""

import copy
import inspect
import math
import subprocess
import sys

import lomo_optim
import pytest
import torch
from hub_lomo.hooks import SPECS
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, through_a_file, weights
from hub.testing.kit_model import batch, loss_of
from hub.testing.kit_model import make_model as make_full_model

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")

THEIRS = {"lomo": lomo_optim.Lomo, "adalomo": lomo_optim.AdaLomo}
LR = 0.05
every_name = pytest.mark.parametrize("name", THEIRS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def _cuda_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)


def make_model(dtype=torch.float32, *, matrices_only=False):
    """A model of one- and two-dimensional parameters; hub decays the latter only."""
    torch.manual_seed(0)
    norm = nn.Identity() if matrices_only else nn.LayerNorm(32)
    bias = not matrices_only
    return nn.Sequential(nn.Linear(16, 32, bias=bias), norm, nn.Linear(32, 8, bias=bias)).to(dtype)


def loss_at(model, step):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(4, 16, generator=generator).to(next(model.parameters()).dtype)
    return (model(inputs).float() - 1.0).square().mean()


def rate(step):
    return LR * (1 - step / 20)


def build(name, model, **arguments):
    return hub.build(name, model, **{"lr": LR, **arguments})


def train(model, optimizer, steps, start=0):
    for step in range(start, start + steps):
        loss_at(model, step).backward()
        optimizer.step()


# The arguments.


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_arguments_and_their_defaults_are_upstreams(spec):
    theirs = inspect.signature(THEIRS[spec.name]).parameters
    ours = {key: field.default for key, field in spec.arguments.model_fields.items()}
    shared = {key: p.default for key, p in theirs.items() if key in ours}
    assert shared == {key: ours[key] for key in shared}
    # Upstream's scale for fp16 is a mapping without a default for LOMO, and static for AdaLomo.
    assert set(theirs) - set(ours) <= {"model", "clip_grad_norm", "loss_scale_args"}
    assert set(ours) - set(theirs) <= {"clipping", "loss_scale", "loss_scale_window"}


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("lomo", {"lr": -1.0}, "greater than or equal to 0"),
        ("lomo", {"weight_decay": -0.1}, "greater than or equal to 0"),
        ("lomo", {"clip_grad_value": 0.0}, "greater than 0"),
        ("lomo", {"loss_scale": 0.5}, "greater than or equal to 1"),
        ("lomo", {"loss_scale_window": 0}, "greater than or equal to 1"),
        ("lomo", {"clip_grad_norm": 1.0}, "use max_grad_norm of hub.build, and clipping"),
        ("lomo", {"optim_args": "clip_grad_norm=1"}, "use max_grad_norm of hub.build"),
        ("lomo", {"max_grad_norm": 1.0}, "clipping='exact'"),
        ("lomo", {"clipping": "exact"}, "no norm to clip to"),
        ("lomo", {"eps": 1e-8}, "no argument 'eps'"),
        ("adalomo", {"eps": 1e-30}, "valid tuple"),
        ("adalomo", {"clip_threshold": 0.0}, "greater than 0"),
        ("adalomo", {"decay_rate": 0.5}, "less than or equal to 0"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(name, arguments, says):
    model = make_model()
    before = weights(model)
    with pytest.raises(hub.OptimArgsError, match=says):
        build(name, model, **arguments)
    assert not moved(model, before)
    build(name, model)  # no hook has stayed


@every_name
def test_gradient_scalers_are_refused(name):
    with pytest.raises(hub.PrecisionError, match="fp16-mixed"):
        build(name, make_model(), precision="fp16-mixed")


def test_the_hooks_import_neither_torch_nor_lomo_optim():
    code = (
        "import sys, hub_lomo.hooks\n"
        "assert not {'torch', 'lomo_optim', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The same optimizer.

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
    matrices_only = "weight_decay" in arguments
    model = make_model(dtype, matrices_only=matrices_only)
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
    model = make_model(matrices_only=True)
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


# Learning rates.


@every_name
def test_groups_keep_their_share_of_a_given_lr(name):
    model = make_model()
    optimizer = build(name, model, param_rules={"2": {"lr_scale": 0.25}})
    first = [group["lr"] for group in optimizer.param_groups]
    assert first == [LR, LR, LR / 4, LR / 4]
    for lr in (0.0, 0.1, LR, 0.03):
        optimizer.fused_backward(loss_at(model, 0), lr)
        assert [g["lr"] for g in optimizer.param_groups] == [lr, lr, lr / 4, lr / 4]


@every_name
def test_a_given_lr_is_everyones_where_the_first_was_zero(name):
    model = make_model()
    optimizer = build(name, model, lr=0.0)
    optimizer.fused_backward(loss_at(model, 0), 0.1)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


@given(
    lr=st.floats(max_value=1e30)
    | st.just(math.inf)
    | st.text(max_size=3)
    | st.booleans()
    | st.just([0.1])
)
def test_a_given_lr_is_a_number_from_zero_on_or_refused(lr):
    model = make_model()
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
    model = make_model(matrices_only=True)
    rules = {"0": {"weight_decay": 0.5}}
    optimizer = build(name, model, weight_decay=0.0, param_rules=rules)
    before = weights(model)
    (loss_at(model, 0) * 0).backward()
    optimizer.step()
    assert moved(model, before) == {"0.weight"}


# Shapes and state.

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


@every_name
@every_dtype
def test_a_run_continues_from_a_file_bit_for_bit(name, dtype):
    model = make_model(dtype)
    optimizer = build(name, model, max_grad_norm=0.1, clipping="previous_norm")
    for step in range(3):  # as under Accelerate: nobody calls step()
        optimizer.fused_backward(loss_at(model, step))
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = make_model(dtype)
    fresh.load_state_dict(saved[0])
    again = build(name, fresh, max_grad_norm=0.1, clipping="previous_norm")
    again.load_state_dict(saved[1])
    for each, stepper in ((model, optimizer), (fresh, again)):
        for step in range(3, 6):
            stepper.fused_backward(loss_at(each, step))
    assert_same(fresh, model)


@every_name
def test_one_optimizer_at_a_time(name):
    model = make_model()
    first = build(name, model)
    with pytest.raises(hub.UnsupportedError, match="still updates"):
        build(name, model)
    del first
    second = build(name, model)
    hub.detach(second)
    assert type(build(name, model)).__mro__[2].__name__ == THEIRS[name].__name__


@every_name
def test_detached_it_steps_eagerly_and_not_in_the_backward_pass(name):
    inside, eager = make_model(), make_model()
    train(inside, build(name, inside), 5)
    optimizer = build(name, eager)
    hub.detach(optimizer)
    for step in range(5):
        loss_at(eager, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same(eager, inside)
    with pytest.raises(hub.UnsupportedError, match="no longer steps"):
        optimizer.fused_backward(loss_at(eager, 0))


# The end of a step that nobody tells of.


def full_loss(model, step):
    model.take_detour = step % 2 == 0
    return loss_of(model, batch(step))


def zeros(_, optimizer):
    optimizer.zero_grad(set_to_none=False)


ENDINGS = [
    pytest.param(lambda _, optimizer: optimizer.step(), id="step"),
    pytest.param(lambda _, optimizer: optimizer.zero_grad(), id="optimizer.zero_grad"),
    pytest.param(zeros, id="zeros"),
    pytest.param(lambda model, _: model.zero_grad(), id="model.zero_grad"),
]


@every_name
@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("clipping", [None, "previous_norm"])
def test_clearing_gradients_ends_a_step(name, end, clipping):
    clip = {"max_grad_norm": 0.05, "clipping": clipping} if clipping else {}
    model, other = make_full_model(), make_full_model()
    ours, theirs = build(name, model, **clip), build(name, other, **clip)
    for step in range(6):
        full_loss(model, step).backward()
        end(model, ours)
        full_loss(other, step).backward()
        theirs.step()
        if end is zeros:  # which count as gradients of the detour
            end(other, theirs)
    assert_same(model, other)


@every_name
def test_a_backward_pass_over_spent_gradients_is_refused(name):
    model = make_model()
    build_and_keep = build(name, model)
    loss_at(model, 0).backward()
    before = weights(model)
    with pytest.raises(hub.UnsupportedError, match="gradient_accumulation_steps"):
        loss_at(model, 1).backward()
    assert not moved(model, before)
    build_and_keep.step()


@every_name
def test_fused_backward_accumulates(name):
    model, other = make_full_model(), make_full_model()
    ours = build(name, model, gradient_accumulation_steps=2)
    theirs = build(name, other)
    hub.detach(theirs)
    for step in range(6):  # the detour gets a gradient in every other micro-batch only
        ours.fused_backward(full_loss(model, step) / 2)
        (full_loss(other, step) / 2).backward()
        if step % 2:
            theirs.step()
            theirs.zero_grad()
    assert_same(model, other)


# fp16 weights.

SMALL = 2.0**-26
"""Of a gradient that fp16 rounds to nothing."""


def half(name, **arguments):
    model = nn.ParameterDict({"weight": torch.ones(4, 4, dtype=torch.float16)})
    return model, build(name, model, **arguments)


def scaling(optimizer):
    group = optimizer.state_dict()["param_groups"][0]
    return group["loss_scale"], group.get("loss_scale_steps", 0)


@pytest.mark.parametrize(
    ("arguments", "moves"), [({}, True), ({"loss_scale": None}, False)], ids=["scaled", "unscaled"]
)
def test_small_gradients_count_where_the_loss_is_scaled(arguments, moves):
    model, optimizer = half("lomo", **arguments)
    optimizer.fused_backward((model["weight"] * SMALL).sum(), 2.0**20)
    expected = 1 - SMALL * 2.0**20 if moves else 1.0
    assert model["weight"].unique().tolist() == [expected]


@every_name
@pytest.mark.parametrize(
    "clip",
    [
        {},
        {"clip_grad_value": 2.0**-4},
        {"clip_grad_value": 2.0**6},  # beyond fp16 when it is scaled
        {"max_grad_norm": 0.125, "clipping": "exact"},
        {"max_grad_norm": 0.125, "clipping": "per_parameter"},
    ],
    ids=["unclipped", "value", "large value", "exact", "per_parameter"],
)
def test_the_scale_does_not_show_in_the_update(name, clip):
    models = []
    for scale in (1.0, 2.0**12, None):
        model, optimizer = half(name, **clip, loss_scale=scale)
        for _ in range(3):
            optimizer.fused_backward(model["weight"].float().square().sum() / 4, 0.5)
        models.append(model)
    assert_same(models[0], models[1])
    assert_same(models[0], models[2])
    assert hub.grad_norm(optimizer) < 2.0


@every_name
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(name):
    model, optimizer = half(name, loss_scale=2.0**15, loss_scale_window=2)
    before = weights(model)
    seen = []
    for factor in (8.0, 4.0, 1.0, 1.0, 1.0):
        optimizer.fused_backward((model["weight"] * factor).sum())
        seen.append((scaling(optimizer), bool(moved(model, before))))
    assert seen == [
        ((2.0**14, 0), False),
        ((2.0**13, 0), False),
        ((2.0**13, 1), True),
        ((2.0**14, 0), True),
        ((2.0**14, 1), True),
    ]
    _, other = half(name, loss_scale=2.0**15, loss_scale_window=2)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    assert scaling(other) == (2.0**14, 1)


@every_name
def test_gradients_that_no_scale_helps_are_an_error(name):
    model, optimizer = half(name, loss_scale=1.0)
    before = weights(model)
    with pytest.raises(hub.HubError, match="even without loss scaling"):
        optimizer.fused_backward((model["weight"] * math.inf).sum())
    assert not moved(model, before)


@every_name
def test_what_cannot_scale_the_loss_is_refused(name):
    model, optimizer = half(name)
    before = weights(model)
    with pytest.raises(hub.HubError, match="does not scale the loss"):
        model["weight"].sum().backward()
    hub.detach(optimizer)
    _, optimizer = half(name, gradient_accumulation_steps=2)
    with pytest.raises(hub.UnsupportedError, match="micro-batches"):
        optimizer.fused_backward(model["weight"].sum())
    assert not moved(model, before)


@every_name
def test_plain_backward_trains_unscaled_where_that_is_asked_for(name):
    model, optimizer = half(name, loss_scale=None)
    before = weights(model)
    model["weight"].sum().backward()
    optimizer.step()
    assert moved(model, before)


@every_name
def test_the_measured_norm_is_that_of_the_unscaled_loss(name):
    model, optimizer = half(name)
    norm = optimizer.grad_norm((model["weight"] * SMALL).sum())
    assert norm == pytest.approx(4 * SMALL)
