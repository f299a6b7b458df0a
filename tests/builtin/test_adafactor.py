"""Adafactor: Transformers' results and checkpoints to the last bit, and an exact bf16 resume."""

import copy
import inspect
import io
from functools import cache

import pytest
import torch
from helpers.models import train
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.optimization import Adafactor as Theirs
from transformers.optimization import AdafactorSchedule

import hub
from hub.builtin import adafactor
from hub.builtin.adafactor import Adafactor, step_size
from hub.builtin.arguments import AdafactorArguments

SHAPES = ((), (1,), (7,), (5, 3), (1, 6), (6, 1), (4, 3, 2, 2), (33, 65))
ZERO = 2, 3
"""Parameters that begin at zero: below the minimum size that `scale_parameter` scales by."""
RARE = 4, 6
"""Parameters without a gradient in two of three steps, whose steps fall behind the others'."""
EXTERNAL = {"lr": 1e-2, "relative_step": False}
RELATIVE = {"lr": None, "relative_step": True}
WARM = {**RELATIVE, "warmup_init": True}
EVERYTHING = {"beta1": 0.9, "weight_decay": 0.1, "clip_threshold": 0.5, "scale_parameter": True}


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator).mul(0.1) for shape in SHAPES]
    for index in ZERO:
        made[index].zero_()
    return [nn.Parameter(tensor.to(dtype)) for tensor in made]


@cache
def gradients(step):
    generator = torch.Generator().manual_seed(step)
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [None if i in RARE and step % 3 else grad for i, grad in enumerate(drawn)]


def take(optimizer, start, stop):
    """Take steps with gradients that depend on the step's number only; return the parameters."""
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(start, stop):
        for parameter, grad in zip(trained, gradients(step), strict=True):
            parameter.grad = None if grad is None else grad.to(parameter.dtype, copy=True)
        optimizer.step()
    return trained


def assert_same(found, expected):
    pairs = enumerate(zip(found, expected, strict=True))
    wrong = [SHAPES[i] for i, (a, b) in pairs if not torch.equal(a, b)]
    assert not wrong, wrong


def saved(optimizer):
    """Return the state dict after a trip through a file."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("clip_threshold", [1.0, 0.01])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("beta1", [None, 0.9])
@pytest.mark.parametrize("scale_parameter", [False, True])
@pytest.mark.parametrize("rate", [EXTERNAL, RELATIVE, WARM], ids=["lr", "relative", "warm"])
def test_it_is_that_of_transformers(rate, scale_parameter, beta1, weight_decay, clip_threshold):
    arguments = {
        **rate,
        "scale_parameter": scale_parameter,
        "beta1": beta1,
        "weight_decay": weight_decay,
        "clip_threshold": clip_threshold,
    }
    expected = take(Theirs(parameters(), **arguments), 0, 200)
    for foreach in (False, True):
        assert_same(take(Adafactor(parameters(), **arguments, foreach=foreach), 0, 200), expected)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("rate", [EXTERNAL, WARM], ids=["lr", "warm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_it_is_that_of_transformers_in_other_dtypes(dtype, rate, foreach):
    arguments = {**rate, **EVERYTHING, "eps": (1e-20, 1e-2), "decay_rate": -0.6}
    optimizer = Adafactor(parameters(dtype), **arguments, foreach=foreach)
    assert_same(take(optimizer, 0, 50), take(Theirs(parameters(dtype), **arguments), 0, 50))
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    assert {
        v.dtype for s in optimizer.state.values() for v in s.values() if v is not s["step"]
    } == {wide}


def test_a_group_may_mix_dtypes():
    both = [*parameters(), *parameters(torch.bfloat16)]
    together, one_by_one = copy.deepcopy(both), copy.deepcopy(both)
    for chosen, foreach in ((together, True), (one_by_one, False)):
        optimizer = Adafactor(chosen, foreach=foreach)
        for parameter in chosen:
            parameter.grad = torch.full_like(parameter, 0.1)
        optimizer.step()
    assert all(map(torch.equal, together, one_by_one))


@pytest.mark.parametrize(
    ("foreach", "torch_would", "together"),
    [(True, False, True), (False, True, False), (None, True, True), (None, False, False)],
)
def test_foreach_decides_and_none_asks_torch(foreach, torch_would, together, monkeypatch):
    monkeypatch.setattr(
        adafactor, "_default_to_fused_or_foreach", lambda *_, **__: (False, torch_would)
    )
    monkeypatch.setattr(adafactor, "_update" if together else "_update_together", None)
    take(Adafactor(parameters(), foreach=foreach), 0, 1)


def test_what_is_updated_together_is_bounded(monkeypatch):
    lengths = []

    def spied(group, works, update=adafactor._update_together):
        lengths.append(len(works))
        update(group, works)

    monkeypatch.setattr(adafactor, "_CHUNK_ELEMENTS", 8)
    monkeypatch.setattr(adafactor, "_update_together", spied)
    found = take(Adafactor(parameters(), foreach=True), 0, 1)
    assert lengths == [3, 1, 2, 1, 1]
    assert_same(found, take(Adafactor(parameters()), 0, 1))


@pytest.mark.parametrize("arguments", [EXTERNAL, {**WARM, **EVERYTHING}], ids=["lr", "everything"])
@pytest.mark.parametrize(("first", "second"), [(Adafactor, Theirs), (Theirs, Adafactor)])
def test_checkpoints_go_both_ways(first, second, arguments):
    arguments = {"scale_parameter": False, **arguments}
    expected = take(Theirs(parameters(), **arguments), 0, 20)
    begun = first(parameters(), **arguments)
    half = take(begun, 0, 10)
    other = second([nn.Parameter(p.detach().clone()) for p in half], **arguments)
    other.load_state_dict(saved(begun))
    assert_same(take(other, 10, 20), expected)


def test_a_checkpoint_of_transformers_goes_on_in_what_hub_builds(make_model):
    whole, half, resumed = make_model(), make_model(), make_model()
    hub_built = hub.build("adafactor", whole)
    train(whole, hub_built, 6)
    groups = [{**g, "params": []} for g in hub.build("adafactor", half).param_groups]
    named = dict(half.named_parameters())
    for group in groups:
        group["params"] = [named[name] for name in group.pop("param_names")]
    upstream = Theirs(groups, lr=1e-3, scale_parameter=False, relative_step=False)
    train(half, upstream, 3)
    resumed.load_state_dict(half.state_dict())
    optimizer = hub.build("adafactor", resumed)
    optimizer.load_state_dict(saved(upstream))
    train(resumed, optimizer, 3, start=3)
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def resumed_in_bf16(build, make_model):
    """Return what training without a break gives, and what save, load and go on gives."""
    whole, half, second = (make_model().bfloat16() for _ in range(3))
    train(whole, build(whole), 6)
    optimizer = build(half)
    train(half, optimizer, 3)
    second.load_state_dict(half.state_dict())
    again = build(second)
    again.load_state_dict(saved(optimizer))
    train(second, again, 3, start=3)
    return list(whole.parameters()), list(second.parameters())


@pytest.mark.filterwarnings("ignore:adafactor.*bf16:hub.HubWarning")
def test_a_bf16_run_resumes_exactly_and_with_transformers_it_does_not(make_model):
    arguments = {"lr": 1e-2, "beta1": 0.9}
    ours = resumed_in_bf16(lambda model: hub.build("adafactor", model, **arguments), make_model)
    assert all(map(torch.equal, *ours))
    theirs = resumed_in_bf16(
        lambda model: Theirs(
            model.parameters(), **arguments, scale_parameter=False, relative_step=False
        ),
        make_model,
    )
    assert not all(map(torch.equal, *theirs))


def test_what_transformers_has_rounded_goes_on_in_fp32():
    arguments = {**EXTERNAL, "scale_parameter": False, "beta1": 0.9}
    begun = Theirs(parameters(torch.bfloat16), **arguments)
    half = take(begun, 0, 3)
    copies = [[nn.Parameter(p.detach().clone()) for p in half] for _ in range(3)]
    rounding = Theirs(copies[0], **arguments)
    rounding.load_state_dict(saved(begun))
    theirs, ours = Theirs(copies[1], **arguments), Adafactor(copies[2], **arguments)
    for optimizer in (theirs, ours):
        optimizer.load_state_dict(saved(rounding))
    assert_same(take(ours, 3, 6), take(theirs, 3, 6))


@pytest.mark.parametrize("scale_parameter", [False, True])
def test_transformers_own_schedule_reports_the_same(scale_parameter):
    arguments = {**WARM, "scale_parameter": scale_parameter}
    reported = []
    for cls in (Adafactor, Theirs):
        optimizer = cls(parameters(), **arguments)
        schedule = AdafactorSchedule(optimizer, initial_lr=0.5)
        rates = [schedule.get_last_lr()]
        for step in range(200):
            take(optimizer, step, step + 1)
            schedule.step()
            rates.append([float(rate) for rate in schedule.get_last_lr()])
        reported.append(rates)
    assert reported[0] == reported[1]


def test_the_step_size_is_the_groups_lr_scaled_or_not():
    optimizer = Adafactor(parameters(), lr=0.5, scale_parameter=False, relative_step=False)
    [group], [*_, last] = optimizer.param_groups, take(optimizer, 0, 2)
    assert step_size(group, optimizer.state[last]) == 0.5
    group["lr"] = 0.25
    assert step_size(group, optimizer.state[last]) == 0.25


def test_parameters_can_be_stepped_one_at_a_time():
    arguments = {**WARM, **EVERYTHING}
    whole = Adafactor(parameters(), **arguments)
    single = Adafactor(parameters(), **arguments)
    [group] = single.param_groups
    everything = list(group["params"])
    for step in range(5):
        take(whole, step, step + 1)
        for parameter, grad in zip(everything, gradients(step), strict=True):
            group["params"] = [parameter]
            parameter.grad = grad
            single.step()
            parameter.grad = None
    assert_same(everything, whole.param_groups[0]["params"])


def test_the_class_has_the_documented_arguments_and_defaults():
    ours, theirs = (inspect.signature(cls).parameters for cls in (hub.Adafactor, Theirs))
    assert {key: ours[key].default for key in theirs} == {k: p.default for k, p in theirs.items()}
    assert ours.keys() - theirs.keys() == {"foreach"}
    trained = []
    for cls, schedule_of in (
        (hub.Adafactor, lambda of: hub.build_scheduler("adafactor", of)),
        (Theirs, AdafactorSchedule),
    ):
        optimizer = cls(parameters())
        schedule, rates = schedule_of(optimizer), []
        for step in range(20):
            weights = take(optimizer, step, step + 1)
            schedule.step()
            rates.append([float(rate) for rate in schedule.get_last_lr()])
        trained.append((weights, rates))
    assert_same(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]


def test_the_class_refuses_what_contradicts():
    with pytest.raises(hub.OptimArgsError, match="computes the learning rate"):
        hub.Adafactor(parameters(), lr=0.1)
    with pytest.raises(hub.OptimArgsError, match="weight_decay"):
        hub.Adafactor(parameters(), weight_decay=-1.0)


def test_a_closure_computes_gradients_inside_the_step():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Adafactor([weight])

    def closure():
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert (weight < 1).all()


def test_a_sparse_gradient_is_refused_before_anything_is_updated():
    dense, sparse = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    dense.grad, sparse.grad = torch.ones(3), torch.ones(3).to_sparse()
    optimizer = Adafactor([{"params": [dense]}, {"params": [sparse]}])
    with pytest.raises(hub.UnsupportedError, match="sparse") as raised:
        optimizer.step()
    assert raised.value.fix
    assert torch.equal(dense, torch.ones(3))
    assert not optimizer.state


def test_the_arguments_and_their_defaults_are_upstreams():
    ours = {key: field.default for key, field in AdafactorArguments.model_fields.items()}
    theirs = {key: p.default for key, p in inspect.signature(Theirs).parameters.items()}
    del theirs["params"], ours["foreach"]
    assert ours == {**theirs, "lr": 1e-3, "scale_parameter": False, "relative_step": False}


@pytest.mark.parametrize(
    ("arguments", "rates"),
    [
        ({}, [1e-3, 1e-3]),
        ({"defaults": {"lr": 0.5, "betas": (0.9, 0.99), "eps": 1e-8}}, [0.5, 0.5]),
        ({"relative_step": True}, [None, None]),
        ({"optim_args": "relative_step=true", "defaults": {"lr": 0.5}}, [None, None]),
        ({"relative_step": True, "lr": None, "defaults": {"lr": 0.5}}, [None, None]),
        ({"param_rules": {"bias": {"relative_step": True, "lr": None}}}, [1e-3, None]),
        (
            {"relative_step": True, "param_rules": {"bias": {"relative_step": False, "lr": 1.0}}},
            [None, 1.0],
        ),
    ],
    ids=["default", "trainer", "relative", "relative in a trainer", "both", "rule", "other rule"],
)
def test_where_the_learning_rate_comes_from(arguments, rates):
    model = nn.Linear(3, 3)
    optimizer = hub.build("adafactor", model, **arguments)
    assert [group["lr"] for group in optimizer.param_groups] == rates
    before = copy.deepcopy(model.state_dict())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    assert not any(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": 1e-3, "relative_step": True}, "needs lr=None, not lr=0.001"),
        ({"lr": None}, "needs relative_step=True"),
        ({"defaults": {"lr": None}}, "needs relative_step=True"),
        ({"warmup_init": True}, "needs relative_step=True"),
        ({"eps": 1e-8}, "eps=1e-08"),
        ({"eps": (1e-30,)}, "eps"),
        ({"eps": (0.0, 1e-3)}, "greater than 0"),
        ({"clip_threshold": -1.0}, "greater than 0"),
        ({"clip_threshold": 0.0}, "greater than 0"),
        ({"decay_rate": 0.8}, "less than or equal to 0"),
        ({"beta1": 1.0}, "less than 1"),
        ({"beta1": -0.1}, "greater than or equal to 0"),
        ({"betas": (0.9, 0.99)}, "no argument 'betas'"),
        ({"param_rules": {"bias": {"relative_step": True}}}, "needs lr=None"),
        ({"param_rules": {"bias": {"foreach": True}}}, "cannot set 'foreach'"),
    ],
    ids=str,
)
def test_bad_input(arguments, says):
    with pytest.raises(hub.OptimArgsError) as raised:
        hub.build("adafactor", nn.Linear(2, 2), **arguments)
    assert says in str(raised.value)


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "lr": st.none() | st.floats(-1, 1),
            "clip_threshold": st.floats(),
            "decay_rate": st.floats(),
            "beta1": st.none() | st.floats(),
            "relative_step": st.booleans(),
            "warmup_init": st.booleans(),
            "scale_parameter": st.booleans(),
        },
    )
)
def test_what_is_built_steps_to_finite_weights(arguments):
    """Any arguments give a `HubError`, or an optimizer that works."""
    model = nn.Linear(2, 2)
    try:
        optimizer = hub.build("adafactor", model, **arguments)
    except hub.OptimArgsError:
        return
    for _ in range(2):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
