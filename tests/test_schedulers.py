"""Schedules equal those of Transformers, step for step."""

import pytest
import torch

import hub

CASES = [
    ("linear", 10, 100, {}),
    ("linear", 0, 7, {}),
    ("cosine", 10, 100, {}),
    ("cosine", 3, 50, {"num_cycles": 2}),
    ("constant", 0, None, {}),
    ("constant_with_warmup", 10, None, {}),
]


def optimizer():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.3, 1e-4, 1.0)]
    return torch.optim.SGD(groups)


@pytest.mark.parametrize(("name", "warmup", "total", "arguments"), CASES, ids=str)
def test_equal_to_transformers_also_after_resuming(name, warmup, total, arguments, tmp_path):
    from transformers import get_scheduler

    ours, theirs = optimizer(), optimizer()
    build = lambda of: hub.build_scheduler(  # noqa: E731
        name, of, num_warmup_steps=warmup, num_training_steps=total, **arguments
    )
    schedule = build(ours)
    reference = get_scheduler(name, theirs, warmup, total, arguments)
    for step in range(120):
        if step == 37:
            torch.save((ours.state_dict(), schedule.state_dict()), tmp_path / "file.pt")
            ours = optimizer()
            schedule = build(ours)
            states = torch.load(tmp_path / "file.pt", weights_only=True)
            ours.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
        assert schedule.get_last_lr() == reference.get_last_lr()
        for thing in (ours, theirs, schedule, reference):
            thing.step()


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
