"""Schedules equal those of Transformers, step for step."""

import inspect
import random

import pytest
import torch

import hub

CASES = [
    ("linear", 10, 100, {}),
    ("linear", 0, 1000, {}),
    ("linear", 999, 1000, {}),
    ("cosine", 10, 100, {}),
    ("cosine", 3, 50, {"num_cycles": 2}),
    ("cosine", 0, 1000, {"num_cycles": 0.25}),
    ("cosine_with_restarts", 10, 900, {}),
    ("cosine_with_restarts", 0, 1000, {"num_cycles": 3}),
    ("cosine_with_restarts", 100, 1000, {"num_cycles": 7}),
    ("polynomial", 10, 900, {}),
    ("polynomial", 0, 1000, {"power": 2.0}),
    ("polynomial", 100, 1000, {"power": 0.5, "lr_end": 1e-5}),
    ("constant", 0, None, {}),
    ("constant_with_warmup", 10, None, {}),
    ("constant_with_warmup", 0, None, {}),
    ("constant_with_warmup", 700, 1000, {}),
    ("inverse_sqrt", 10, None, {}),
    ("inverse_sqrt", 0, 1000, {}),
    ("inverse_sqrt", 100, None, {"timescale": 50}),
    ("cosine_with_min_lr", 10, 900, {"min_lr": 1e-4}),
    ("cosine_with_min_lr", 0, 1000, {"min_lr_rate": 0.1}),
    ("cosine_with_min_lr", 100, 1000, {"min_lr_rate": 0.1, "num_cycles": 1.5}),
    ("cosine_warmup_with_min_lr", 10, 900, {"min_lr": 1e-4}),
    ("cosine_warmup_with_min_lr", 100, 1000, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.05}),
    ("cosine_warmup_with_min_lr", 0, 1000, {"min_lr_rate": 0.0, "num_cycles": 1.0}),
    ("warmup_stable_decay", 100, 1000, {"num_decay_steps": 200}),
    (
        "warmup_stable_decay",
        100,
        1000,
        {"num_decay_steps": 300, "warmup_type": "cosine", "decay_type": "linear"},
    ),
    (
        "warmup_stable_decay",
        50,
        None,
        {
            "num_decay_steps": 100,
            "num_stable_steps": 400,
            "warmup_type": "1-sqrt",
            "decay_type": "1-sqrt",
            "min_lr_ratio": 0.1,
        },
    ),
    ("warmup_stable_decay", 0, 500, {"num_decay_steps": 500, "num_cycles": 1.5}),
]


def optimizer(rates=(0.3, 1e-4, 1.0)):
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in rates]
    return torch.optim.SGD(groups, lr=0.3)


@pytest.mark.parametrize("rates", [(0.3,), (0.3, 1e-4, 1.0)], ids=["one group", "three groups"])
@pytest.mark.parametrize(("name", "warmup", "total", "arguments"), CASES, ids=str)
def test_equal_to_transformers_also_after_resuming(name, warmup, total, arguments, rates, tmp_path):
    from transformers import get_scheduler

    ours, theirs = optimizer(rates), optimizer(rates)
    saved_at = random.Random(f"{name}{warmup}{len(rates)}").randrange(1, 1000)
    build = lambda of: hub.build_scheduler(  # noqa: E731
        name, of, num_warmup_steps=warmup, num_training_steps=total, **arguments
    )
    schedule = build(ours)
    reference = get_scheduler(name, theirs, warmup, total, arguments)
    for step in range(1001):
        if step == saved_at:
            torch.save((ours.state_dict(), schedule.state_dict()), tmp_path / "file.pt")
            ours = optimizer(rates)
            schedule = build(ours)
            states = torch.load(tmp_path / "file.pt", weights_only=True)
            ours.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
        assert schedule.get_last_lr() == reference.get_last_lr()
        for thing in (ours, theirs, schedule, reference):
            thing.step()


@pytest.mark.parametrize(("name", "warmup", "total", "arguments"), CASES, ids=str)
def test_state_dicts_go_to_transformers_and_back(name, warmup, total, arguments):
    from transformers import get_scheduler

    ours, theirs = optimizer(), optimizer()
    schedule = hub.build_scheduler(
        name, ours, num_warmup_steps=warmup, num_training_steps=total, **arguments
    )
    reference = get_scheduler(name, theirs, warmup, total, arguments)
    for _ in range(30):
        for thing in (ours, schedule):
            thing.step()
    reference.load_state_dict(schedule.state_dict())
    reference.step()
    schedule.load_state_dict(reference.state_dict())
    for thing in (theirs, reference, ours, schedule):
        thing.step()
    assert schedule.get_last_lr() == reference.get_last_lr()
    assert schedule.last_epoch == 32


@pytest.mark.parametrize("last_epoch", [0, 9, 40])
@pytest.mark.parametrize(("name", "warmup", "total", "arguments"), CASES, ids=str)
def test_last_epoch_is_that_of_transformers(name, warmup, total, arguments, last_epoch):
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    function = TYPE_TO_SCHEDULER_FUNCTION[name]  # `get_scheduler` passes it to some only
    steps = {"num_warmup_steps": warmup, "num_training_steps": total}
    steps = {key: steps[key] for key in steps if key in inspect.signature(function).parameters}
    ours, theirs = optimizer(), optimizer()
    for of in (ours, theirs):
        for group in of.param_groups:
            group["initial_lr"], group["lr"] = group["lr"], 0.123
    schedule = hub.build_scheduler(
        name,
        ours,
        num_warmup_steps=warmup,
        num_training_steps=total,
        last_epoch=last_epoch,
        **arguments,
    )
    reference = function(theirs, **steps, **arguments, last_epoch=last_epoch)
    for _ in range(60):
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
        assert schedule.last_epoch == reference.last_epoch
        for thing in (ours, theirs, schedule, reference):
            thing.step()


def test_last_epoch_needs_the_peaks():
    with pytest.raises(hub.OptimArgsError, match="group 0 has no 'initial_lr'"):
        hub.build_scheduler("constant", optimizer(), last_epoch=3)
    with pytest.raises(hub.OptimArgsError, match="last_epoch"):
        hub.build_scheduler("constant", optimizer(), last_epoch=-2)
    with pytest.raises(hub.OptimArgsError, match="no argument 'last_epoch'"):
        hub.build_scheduler("greedy", optimizer(), last_epoch=3)


def after_a_run(through_a_file):
    """Return an optimizer whose first schedule has ended, live or in a new process."""
    of = optimizer((0.3, 0.1))
    first = hub.build_scheduler("linear", of, num_training_steps=3)
    for _ in range(3):
        of.step()
        first.step()
    if through_a_file:
        state, of = of.state_dict(), optimizer((0.3, 0.1))
        of.load_state_dict(state)
    assert [group["lr"] for group in of.param_groups] == [0.0, 0.0]
    return of


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_second_schedule_starts_at_the_rates_of_the_groups(through_a_file):
    """And not at the peaks of the first, which torch keeps in the groups."""
    of = after_a_run(through_a_file)
    for group in of.param_groups:
        group["lr"] = 1e-5
    second = hub.build_scheduler("cosine", of, num_training_steps=10)
    assert second.base_lrs == [1e-5, 1e-5]
    assert [group["lr"] for group in of.param_groups] == [1e-5, 1e-5]


@pytest.mark.parametrize("first", ["hub", "torch"])
def test_schedules_one_after_the_other_share_the_peaks(first):
    """The first one's warm-up has set the rates to (nearly) 0 when the second is built."""
    of, reference = optimizer((0.3, 0.1)), optimizer((0.3, 0.1))
    built = []
    for each in (of, reference):
        rising = (
            hub.build_scheduler("constant_with_warmup", each, num_warmup_steps=5)
            if first == "hub" and each is of
            else torch.optim.lr_scheduler.LambdaLR(each, lambda step: min(1.0, step / 5))
        )
        falling = (
            hub.build_scheduler("linear", each, num_training_steps=10)
            if each is of
            else torch.optim.lr_scheduler.LambdaLR(each, lambda step: max(0.0, (10 - step) / 10))
        )
        built.append(torch.optim.lr_scheduler.SequentialLR(each, [rising, falling], [5]))
    for _ in range(15):
        assert [g["lr"] for g in of.param_groups] == [g["lr"] for g in reference.param_groups]
        for thing in (of, reference, *built):
            thing.step()


@pytest.mark.parametrize("name", ["linear", "greedy"])
@pytest.mark.parametrize("optimizer_first", [False, True])
def test_resuming_in_another_order(name, optimizer_first):
    """The optimizer's state before the schedule is built, or after the schedule's state."""
    of_greedy = name == "greedy"
    arguments = {"patience": 0} if of_greedy else {"num_warmup_steps": 2, "num_training_steps": 9}

    def advance(of, schedule, at):
        of.step()
        schedule.step(*[0.9**at] * of_greedy)

    whole, resumed = optimizer((0.3, 0.1)), optimizer((0.3, 0.1))
    schedule = hub.build_scheduler(name, whole, **arguments)
    for at in range(4):
        advance(whole, schedule, at)
    if optimizer_first:
        resumed.load_state_dict(whole.state_dict())
    continued = hub.build_scheduler(name, resumed, **arguments)
    continued.load_state_dict(schedule.state_dict())
    if not optimizer_first:
        resumed.load_state_dict(whole.state_dict())
    for at in range(4, 9):
        assert [g["lr"] for g in resumed.param_groups] == [g["lr"] for g in whole.param_groups]
        advance(whole, schedule, at)
        advance(resumed, continued, at)


def test_loading_a_schedule_alone_sets_the_rates():
    """As `GreedyLR` of Transformers does; torch's leave the groups as they were built."""
    for name, arguments in (("greedy", {"patience": 0}), ("linear", {"num_training_steps": 9})):
        first, second = optimizer((0.3,)), optimizer((0.3,))
        trained = hub.build_scheduler(name, first, **arguments)
        for metric in (3.0, 2.0, 1.0):
            first.step()
            trained.step(*[metric] * (name == "greedy"))
        hub.build_scheduler(name, second, **arguments).load_state_dict(trained.state_dict())
        assert [g["lr"] for g in second.param_groups] == [g["lr"] for g in first.param_groups]
        assert first.param_groups[0]["lr"] != 0.3


@pytest.mark.parametrize("name", ["cosine_with_min_lr", "cosine_warmup_with_min_lr"])
def test_a_least_rate_above_the_peak(name):
    with pytest.raises(hub.OptimArgsError, match=r"min_lr=1 is above .* learning rate, 0\.3"):
        hub.build_scheduler(name, optimizer(), num_training_steps=10, min_lr=1.0)
    with pytest.raises(hub.OptimArgsError, match="min_lr_rate"):
        hub.build_scheduler(name, optimizer(), num_training_steps=10, min_lr_rate=1.5)
    hub.build_scheduler(name, optimizer(), num_training_steps=10, min_lr=0.3)


@pytest.mark.parametrize(
    ("stable", "says"),
    [(5, "12 steps, but the training has 20: the last 8 stay"), (15, "last 2 are never reached")],
)
def test_parts_that_do_not_add_up(stable, says):
    parts = {"num_warmup_steps": 2, "num_training_steps": 20, "num_decay_steps": 5}
    with pytest.warns(hub.HubWarning, match=says):
        hub.build_scheduler("warmup_stable_decay", optimizer(), num_stable_steps=stable, **parts)
    hub.build_scheduler("warmup_stable_decay", optimizer(), num_stable_steps=13, **parts)


@pytest.mark.parametrize("state", [None, 5, "x", [], {}, {"last_epoch": 3}], ids=str)
@pytest.mark.parametrize("name", ["cosine", "greedy", "reduce_lr_on_plateau"])
def test_a_state_of_something_else(name, state):
    of = optimizer((0.3,))
    schedule = hub.build_scheduler(name, of, num_training_steps=5)
    before = repr(schedule.state_dict())
    with pytest.raises(hub.CheckpointError, match="so it is not from such a schedule"):
        schedule.load_state_dict(state)
    assert repr(schedule.state_dict()) == before


@pytest.mark.parametrize("of", [None, 5, torch.nn.Linear(1, 1), "adamw_torch"])
def test_a_schedule_of_what_is_no_optimizer(of):
    with pytest.raises(hub.HubError, match="is not an optimizer"):
        hub.build_scheduler("constant", of)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("linear", {}, "needs to know how long"),
        ("linear", {"num_training_steps": 10, "num_warmup_steps": 11}, "do not fit"),
        ("linear", {"num_training_steps": 0}, "not a number of steps"),
        ("linear", {"num_training_steps": 10, "num_warmup_steps": 0.1}, "not a number of steps"),
        ("cosine", {"num_training_steps": 10, "num_cycle": 1}, "did you mean 'num_cycles'"),
        ("cosine", {"num_training_steps": 10, "num_cycles": "x"}, "valid number"),
        ("cosin", {}, "did you mean cosine"),
        ("polynomial", {"num_training_steps": 10, "lr_end": 0.3}, "not below the optimizer's"),
        ("cosine_with_min_lr", {"num_training_steps": 10}, "either min_lr or min_lr_rate"),
        (
            "cosine_with_min_lr",
            {"num_training_steps": 10, "min_lr": 0.1, "min_lr_rate": 0.1},
            "either min_lr or min_lr_rate",
        ),
        ("warmup_stable_decay", {"num_training_steps": 10}, "field required"),
        ("warmup_stable_decay", {"num_decay_steps": 5}, "stable phase is unknown"),
        (
            "warmup_stable_decay",
            {"num_decay_steps": 8, "num_warmup_steps": 5, "num_training_steps": 10},
            "exceed 10 training steps",
        ),
        (
            "warmup_stable_decay",
            {"num_decay_steps": 5, "num_training_steps": 10, "decay_type": "square"},
            "'linear', 'cosine' or '1-sqrt'",
        ),
        ("reduce_lr_on_plateau", {"factor": 1.5}, "less than 1"),
    ],
)
def test_bad_input(name, arguments, says):
    of = optimizer()
    before = of.state_dict()
    with pytest.raises(hub.HubError, match=says):
        hub.build_scheduler(name, of, **arguments)
    assert of.state_dict() == before


def test_a_warmup_that_has_no_effect_is_told():
    with pytest.warns(hub.HubWarning, match="use 'constant_with_warmup'"):
        hub.build_scheduler("constant", optimizer(), num_warmup_steps=5)


@pytest.mark.parametrize(("name", "warned"), [("linear", True), ("constant_with_warmup", False)])
def test_annealing_twice_is_told(name, warned, recwarn):
    free = hub.build("schedule_free_adamw", torch.nn.Linear(2, 2))
    hub.build_scheduler(name, free, num_training_steps=10)
    assert [str(w.message)[:19] for w in recwarn] == ["schedule_free_adamw"] * warned


def test_a_plateau_is_left_like_with_torchs_own_class(tmp_path):
    metrics = random.Random(0).choices([0.1, 0.2, 0.3], k=200)
    ours, theirs = optimizer(), optimizer()
    arguments = {"patience": 3, "factor": 0.5, "cooldown": 2, "min_lr": 1e-3}
    schedule = hub.build_scheduler("reduce_lr_on_plateau", ours, **arguments)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **arguments)
    for step, metric in enumerate(metrics):
        if step == 77:
            torch.save((ours.state_dict(), schedule.state_dict()), tmp_path / "file.pt")
            ours = optimizer()
            schedule = hub.build_scheduler("reduce_lr_on_plateau", ours, **arguments)
            states = torch.load(tmp_path / "file.pt", weights_only=True)
            ours.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        schedule.step(metric)
        reference.step(metric)
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
