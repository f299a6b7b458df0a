"""Every schedule drives tensors as it drives numbers, and groups that join the optimizer later."""

import gc
import random

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

import hub
from hub.names.registry import default_registry

STEPS = 60
# What a schedule needs; those that are not here need nothing.
ARGUMENTS = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-3},
    "greedy": {"patience": 1, "factor": 0.5, "min_lr": 2**-10, "reset_start": 2},
    "polynomial": {"lr_end": 1e-3},
    "reduce_lr_on_plateau": {"patience": 1, "factor": 0.5},
    "warmup_stable_decay": {"num_decay_steps": 20},
}
SPECS = {name: default_registry().scheduler(name) for name in hub.list_schedulers()}
BY_METRIC = [name for name in SPECS if SPECS[name].needs_metric]
# That of adafactor reads the learning rate and does not decide it: see test_adafactor_schedule.
DECIDING = [name for name in SPECS if name != "adafactor"]
CURVES = [name for name in DECIDING if name not in BY_METRIC]


def optimizer(*rates):
    """One group each; None has the default, which is the first."""
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(3))]} | ({} if lr is None else {"lr": lr})
        for lr in rates
    ]
    return torch.optim.SGD(groups, lr=rates[0])


def build(name, of):
    spec = SPECS[name]
    return hub.build_scheduler(
        name,
        of,
        num_training_steps=STEPS,
        num_warmup_steps=10 if spec.uses_warmup_steps else None,
        **ARGUMENTS.get(name, {}),
    )


def metrics():
    rng = random.Random(0)
    return [rng.choice([1.0, 0.9, 0.8]) * 0.95 ** min(step, 30) for step in range(STEPS)]


def advance(name, of, schedule, metric):
    of.step()
    schedule.step(*[metric] * (name in BY_METRIC))


def rates_of(of):
    return [float(group["lr"]) for group in of.param_groups]


def fp32(value):
    return torch.tensor(value, dtype=torch.float32).item()


def through_a_file(state, tmp_path):
    torch.save(state, tmp_path / "file.pt")
    return torch.load(tmp_path / "file.pt", weights_only=True)


@pytest.mark.parametrize("name", DECIDING)
def test_a_tensor_stays_and_gets_the_same_values_rounded(name, tmp_path):
    """Schedules by metric go on from the rounded value, here as there."""
    rates = [fp32(0.1), fp32(0.3)]
    of, reference = optimizer(*map(torch.tensor, rates)), optimizer(*rates)
    tensors = [group["lr"] for group in of.param_groups]
    schedule, expected = build(name, of), build(name, reference)
    for metric in metrics():
        assert [group["lr"].item() for group in of.param_groups] == list(
            map(fp32, rates_of(reference))
        )
        last = schedule.get_last_lr()
        assert list(map(float, last)) == rates_of(of)
        assert not any(g["lr"] is rate for g, rate in zip(of.param_groups, last, strict=True))
        assert all(g["lr"] is t for g, t in zip(of.param_groups, tensors, strict=True))
        advance(name, of, schedule, metric)
        advance(name, reference, expected, metric)
        if name in BY_METRIC:
            for group in reference.param_groups:
                group["lr"] = fp32(group["lr"])
    saved = schedule.state_dict()
    schedule.load_state_dict(through_a_file(saved, tmp_path))
    assert repr(schedule.state_dict()) == repr(saved)


@pytest.mark.parametrize("name", DECIDING)
def test_groups_that_share_a_tensor_each_change_once(name):
    """torch gives all groups that name no learning rate the one tensor of the defaults."""
    of, reference = optimizer(torch.tensor(0.125), None, None), optimizer(0.125, None, None)
    assert of.param_groups[1]["lr"] is of.param_groups[0]["lr"]
    schedule, expected = build(name, of), build(name, reference)
    for metric in metrics():
        advance(name, of, schedule, metric)
        advance(name, reference, expected, metric)
        assert rates_of(of) == pytest.approx(rates_of(reference), rel=1e-6)


def test_a_plateau_writes_into_a_tensor_also_where_torch_does_not(monkeypatch):
    """As ReduceLROnPlateau of torch 2.6 does: it puts a number in the tensor's place."""

    def reduce(self, epoch):
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            group["lr"] = max(float(group["lr"]) * self.factor, least)

    monkeypatch.setattr(ReduceLROnPlateau, "_reduce_lr", reduce)
    of = optimizer(torch.tensor(0.5))
    tensor = of.param_groups[0]["lr"]
    schedule = hub.build_scheduler("reduce_lr_on_plateau", of, patience=0)
    for _ in range(2):
        schedule.step(1.0)
    assert of.param_groups[0]["lr"] is tensor
    assert tensor.item() == fp32(0.05)


def late(of, lr, kind):
    rate = {} if lr is None else {"lr": kind(lr)}
    of.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], **rate})


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["numbers", "tensors"])
@pytest.mark.parametrize("lr", [0.25, None], ids=["own", "default"])
@pytest.mark.parametrize("joins_at", [3, 35], ids=["in warm-up", "later"])
@pytest.mark.parametrize("name", DECIDING)
def test_a_late_group_has_the_rates_of_one_from_the_start(name, joins_at, lr, kind):
    """For schedules by metric: one whose learning rate was left alone until then."""
    of, reference = optimizer(kind(0.125)), optimizer(0.125, lr)
    schedule, expected = build(name, of), build(name, reference)
    used = []
    of.register_step_post_hook(lambda of, *_: used.append(rates_of(of)))
    for step, metric in enumerate(metrics()):
        if step == joins_at:
            late(of, lr, kind)
            if name in BY_METRIC:
                reference.param_groups[1]["lr"] = lr or 0.125
        present = rates_of(reference)
        advance(name, of, schedule, metric)
        advance(name, reference, expected, metric)
        groups = 1 if step < joins_at else 2
        assert used[-1] == pytest.approx(present[:groups], rel=1e-6 * (kind is not float))
        assert len(schedule.get_last_lr()) == groups


@pytest.mark.parametrize("name", DECIDING)
def test_late_groups_do_not_share_the_tensor_of_the_defaults(name):
    of = optimizer(torch.tensor(0.125))
    schedule = build(name, of)
    for step, metric in enumerate(metrics()):
        if step in {3, 35, 36}:
            late(of, None, float)
            assert of.param_groups[-1]["lr"].item() == 0.125
        advance(name, of, schedule, metric)
        tensors = [group["lr"] for group in of.param_groups]
        assert len({id(tensor) for tensor in [*tensors, of.defaults["lr"]]}) == len(tensors) + 1
    if name in CURVES:
        assert len(set(rates_of(of))) == 1


@pytest.mark.parametrize("first", ["group", "states"])
@pytest.mark.parametrize("name", DECIDING)
def test_a_late_group_is_resumed(name, first, tmp_path):
    """Whether a fresh run adds the group before it loads the schedule's state, or after."""
    of = optimizer(0.125)
    schedule = build(name, of)
    for step, metric in enumerate(metrics()):
        if step == 20:
            late(of, 0.25, float)
        if step == 40:
            states = through_a_file((of.state_dict(), schedule.state_dict()), tmp_path)
            resumed = optimizer(0.125)
            continued = build(name, resumed)
            if first == "states":
                continued.load_state_dict(states[1])
            late(resumed, 0.25, float)
            resumed.load_state_dict(states[0])
            continued.load_state_dict(states[1])
        advance(name, of, schedule, metric)
        if step >= 40:
            advance(name, resumed, continued, metric)
            assert rates_of(resumed) == rates_of(of)


@pytest.mark.parametrize("name", CURVES)
def test_a_saved_state_does_not_change_when_a_group_joins(name):
    of = optimizer(0.125)
    schedule = build(name, of)
    saved = schedule.state_dict()
    before = repr(saved)
    late(of, 0.25, float)
    of.step()
    assert repr(saved) == before


def test_a_schedule_that_is_gone_leaves_the_optimizer_alone():
    of = optimizer(0.125)
    schedule = build("linear", of)
    assert of._optimizer_step_pre_hooks
    del schedule
    gc.collect()
    assert not of._optimizer_step_pre_hooks


def test_the_last_of_two_schedules_drives_a_late_group():
    of = optimizer(0.125)
    first = hub.build_scheduler("linear", of, num_training_steps=10)
    second = hub.build_scheduler("constant", of)
    for schedule in (first, first, first, second):
        of.step()
        schedule.step()
    late(of, 0.25, float)
    of.step()
    assert rates_of(of) == [0.125, 0.25]


@pytest.mark.parametrize("name", DECIDING)
def test_a_late_group_of_an_optimizer_inside_accelerates(name):
    from accelerate import Accelerator

    of = optimizer(0.125)
    wrapped = Accelerator(cpu=True).prepare(of)
    schedule = build(name, wrapped)
    late(wrapped, 0.25, float)
    advance(name, wrapped, schedule, 1.0)
    assert len(schedule.get_last_lr()) == len(of.param_groups) == 2
