"""Schedules equal those of Transformers, step for step."""

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
        ("warmup_stable_decay", {"num_decay_steps": 5}, "stable phase is not known"),
        (
            "warmup_stable_decay",
            {"num_decay_steps": 8, "num_warmup_steps": 5, "num_training_steps": 10},
            "do not fit",
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
