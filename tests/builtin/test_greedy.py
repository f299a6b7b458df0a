"""`greedy` equals `transformers.GreedyLR`, and mends what is wrong with it."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hub

STEPS = 2_000
# Where Transformers' class is equal, whatever the metrics.
ARGUMENTS = [
    {},
    {"patience": 0},
    {"patience": 3, "factor": 0.5, "min_lr": 1e-6},
    {"patience": 1, "cooldown": 3, "warmup": 2},
    {"patience": 2, "threshold": 0.01, "threshold_mode": "rel"},
    {"patience": 2, "threshold": 0.01, "threshold_mode": "rel", "mode": "max"},
    {"patience": 1, "mode": "max", "max_lr": 1.5},
    {"patience": 1, "smooth": True},
    {"patience": 0, "smooth": True, "window_size": 3, "reset_start": 2},
    {"patience": 1, "reset_start": 5, "factor": 0.7, "cooldown": 1},
    {"patience": 0, "reset_start": 0, "factor": 0.3, "eps": 0.0},
    {"patience": 2, "eps": 1e-4, "factor": 0.9},
]
RATES = [(0.01,), (0.3, 0.002, 1.0)]


def optimizer(rates):
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def metrics_of(seed):
    """Falling, rising and flat stretches, with noise."""
    rng = random.Random(seed)
    value = 1.0
    for _ in range(20):
        slope, noise = rng.choice([-0.01, 0.0, 0.005]), rng.choice([0.0, 0.002])
        for _ in range(STEPS // 20):
            value += slope
            yield value + rng.uniform(-noise, noise)


def rates_of(of):
    return [group["lr"] for group in of.param_groups]


def through_a_file(state, tmp_path):
    torch.save(state, tmp_path / "file.pt")
    return torch.load(tmp_path / "file.pt", weights_only=True)


@pytest.mark.parametrize("seed", range(50))
def test_equal_to_transformers_also_after_resuming(seed, tmp_path):
    from transformers import GreedyLR

    rates, arguments = RATES[seed % 2], dict(ARGUMENTS[seed // 2 % len(ARGUMENTS)])
    if len(rates) > 1 and seed % 3 == 0:
        arguments |= {"min_lr": [1e-3, 1e-4, 0.5], "max_lr": [0.4, 0.002, 3.0]}
    ours, theirs = optimizer(rates), optimizer(rates)
    schedule = hub.build_scheduler("greedy", ours, **arguments)
    reference = GreedyLR(theirs, **arguments)
    saved_at = random.Random(seed).randrange(STEPS)
    seen = set()
    for step, metric in enumerate(metrics_of(seed)):
        if step == saved_at:
            states = through_a_file((ours.state_dict(), schedule.state_dict()), tmp_path)
            ours = optimizer(rates)
            schedule = hub.build_scheduler("greedy", ours, **arguments)
            ours.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        schedule.step(metric)
        reference.step(metric)
        assert rates_of(ours) == rates_of(theirs), step
        assert schedule.get_last_lr() == reference.get_last_lr()
        seen.add(rates_of(ours)[0])
    assert len(seen) > 5  # it moved at all


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_state_dicts_go_both_ways(arguments, tmp_path):
    from transformers import GreedyLR

    metrics = list(metrics_of(7))[:600]
    ours, theirs = optimizer(RATES[1]), optimizer(RATES[1])
    schedules = [hub.build_scheduler("greedy", ours, **arguments), GreedyLR(theirs, **arguments)]
    for metric in metrics[:300]:
        for schedule in schedules:
            schedule.step(metric)
    states = [through_a_file(schedule.state_dict(), tmp_path) for schedule in schedules]
    schedules[0].load_state_dict(states[1])
    schedules[1].load_state_dict(states[0])
    for metric in metrics[300:]:
        for schedule in schedules:
            schedule.step(metric)
        assert rates_of(ours) == rates_of(theirs)


def test_a_saved_state_does_not_change_afterwards():
    schedule = hub.build_scheduler("greedy", optimizer((0.01,)), smooth=True, patience=0)
    schedule.step(1.0)
    saved = schedule.state_dict()
    before = repr(saved)
    schedule.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    for metric in (0.5, 0.4, 0.9):
        schedule.step(metric)
    assert repr(saved) == before


def test_a_trainer_takes_it_for_a_schedule_by_metric():
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    assert isinstance(hub.build_scheduler("greedy", optimizer((0.01,))), ReduceLROnPlateau)


@pytest.mark.parametrize(
    ("rates", "arguments", "says"),
    [
        ((5e-5,), {}, "min_lr=0.001 is above the optimizer's learning rate, 5e-05"),
        ((0.1, 1e-4), {}, "use a min_lr of at most 0.0001"),
        ((2.0,), {}, "max_lr=1 is below the optimizer's learning rate, 2"),
        ((0.1,), {"min_lr": 0.05, "max_lr": 0.01}, "max_lr=0.01 is below"),
        ((0.1,), {"min_lr": [0.01, 0.01]}, "min_lr has 2 values for 1 parameter groups"),
        ((0.1, 0.1), {"max_lr": (1.0,)}, "max_lr has 1 values for 2 parameter groups"),
        ((0.1, 0.1), {"min_lr": [0.01, -1.0]}, "cannot be negative"),
        ((0.1,), {"max_lr": -1.0}, "cannot be negative"),
        ((0.1,), {"factor": 1.0}, "less than 1"),
        ((0.1,), {"factor": 0.0}, "greater than 0"),
        ((0.1,), {"patience": -1}, "greater than or equal to 0"),
        ((0.1,), {"window_size": 0}, "greater than 0"),
        ((0.1,), {"mode": "least"}, "'min' or 'max'"),
        ((0.1,), {"verbose": True}, "no argument 'verbose'"),
    ],
)
def test_bad_input(rates, arguments, says):
    of = optimizer(rates)
    before = of.state_dict()
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build_scheduler("greedy", of, **arguments)
    assert of.state_dict() == before


@given(
    key=st.sampled_from(["factor", "patience", "threshold", "min_lr", "smooth", "reset_start"]),
    value=st.one_of(st.text(), st.floats(), st.lists(st.text()), st.none(), st.binary()),
)
def test_any_value_is_taken_or_refused_by_hubs_own_error(key, value):
    try:
        schedule = hub.build_scheduler("greedy", optimizer((0.01,)), **{key: value})
    except hub.OptimArgsError:
        return
    schedule.step(1.0)


@pytest.mark.parametrize("name", ["greedy", "reduce_lr_on_plateau"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "got no metric"),
        (({"loss": 1.0},), "got dict"),
        ((torch.ones(2),), "got Tensor"),
    ],
)
def test_a_step_without_a_metric_is_told(name, arguments, says):
    schedule = hub.build_scheduler(name, optimizer((0.01,)))
    with pytest.raises(hub.OptimArgsError, match=says):
        schedule.step(*arguments)
    schedule.step(torch.tensor(1.0))


def test_a_warmup_of_the_training_has_no_effect():
    with pytest.warns(hub.HubWarning, match="num_warmup_steps=5 has no effect"):
        hub.build_scheduler("greedy", optimizer((0.01,)), num_warmup_steps=5)


def test_the_average_forgets_what_is_not_finite():
    of = optimizer((0.01,))
    schedule = hub.build_scheduler("greedy", of, smooth=True, window_size=2, patience=0)
    for metric in (1.0, math.nan, 0.5, 0.4):
        schedule.step(metric)
    assert schedule.best == (0.5 + 0.4) / 2
    from transformers import GreedyLR

    theirs = GreedyLR(optimizer((0.01,)), smooth=True, window_size=2, patience=0)
    for metric in (1.0, math.nan, 0.5, 0.4):
        theirs.step(metric)
    assert theirs.best == 1.0


def test_a_tensor_at_its_least_is_reset():
    """The fp32 number nearest to 1e-3 is above it."""
    of = optimizer((0.1,))
    of.param_groups[0]["lr"] = torch.tensor(0.1)
    schedule = hub.build_scheduler("greedy", of, patience=0, factor=0.1, max_lr=0.1, reset_start=2)
    for expected in (0.1, 0.01, 1e-3, 0.1):  # the first metric is an improvement
        schedule.step(1.0)
        assert of.param_groups[0]["lr"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["greedy", "reduce_lr_on_plateau"])
def test_a_late_group_and_bounds_of_each(name):
    of = optimizer((0.01,))
    schedule = hub.build_scheduler(name, of, min_lr=[1e-3], patience=0)
    of.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    with pytest.raises(hub.OptimArgsError, match="append to min_lrs"):
        schedule.step(1.0)
    schedule.min_lrs.append(5e-3)
    for _ in range(100):
        schedule.step(1.0)
    assert rates_of(of) == [1e-3, 5e-3]


def test_a_late_group_outside_of_the_bounds_is_told():
    of = optimizer((0.01,))
    schedule = hub.build_scheduler("greedy", of)
    of.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1e-4})
    with pytest.raises(hub.OptimArgsError, match=r"use a min_lr of at most 0\.0001"):
        schedule.step(1.0)
