"""Which optimizer and schedule are said not to go together, and which are not."""

import pytest
import torch
from torch import nn

import hub


def adamw(**arguments):
    return hub.build("adamw_torch", nn.Linear(2, 2), **arguments)


def free(**arguments):
    return hub.build("schedule_free_adamw", nn.Linear(2, 2), **arguments)


def relative(**arguments):
    from transformers import Adafactor

    return Adafactor(nn.Linear(2, 2).parameters(), relative_step=True, **arguments)


def wrapped(make):
    from accelerate import Accelerator

    return lambda **arguments: Accelerator(cpu=True).prepare(make(**arguments))


def own_class():
    return hub.build((torch.optim.SGD, {"lr": 0.1}), nn.Linear(2, 2))


STEPS = {"num_training_steps": 100}
WARM = {**STEPS, "num_warmup_steps": 10}


@pytest.mark.parametrize(
    ("make", "arguments", "schedule", "steps", "says"),
    [
        pytest.param(*row[:-1], row[-1], id=f"{row[0].__name__}-{row[2]}-{row[-1]}")
        for row in [
            (free, {}, "linear", STEPS, "anneals by averaging.*use 'constant'"),
            (wrapped(free), {}, "linear", STEPS, "anneals by averaging"),
            (free, {}, "constant", {}, None),
            (free, {}, "constant_with_warmup", WARM, None),
            (adamw, {}, "linear", WARM, None),
            (own_class, {}, "linear", WARM, None),
            (free, {"warmup_steps": 5}, "constant_with_warmup", WARM, "for 5 steps.*for 10 at the"),
            (free, {"warmup_steps": 5}, "constant_with_warmup", STEPS, None),
            (free, {"warmup_steps": 5}, "constant", {}, None),
            (adamw, {}, "constant", WARM, "num_warmup_steps=10 has no effect"),
            (adamw, {}, "reduce_lr_on_plateau", {}, None),
        ]
    ],
)
def test_warnings(make, arguments, schedule, steps, says, recwarn):
    optimizer = make(**arguments)
    hub.build_scheduler(schedule, optimizer, **steps)
    messages = [warning for warning in recwarn if warning.category is hub.HubWarning]
    assert len(messages) == len(recwarn) == (says is not None)
    if says:
        assert messages[0].filename == __file__
        with pytest.warns(hub.HubWarning, match=says):
            hub.build_scheduler(schedule, make(**arguments), **steps)


def ours(**arguments):
    return hub.build("adafactor", nn.Linear(2, 2), relative_step=True, lr=None, **arguments)


@pytest.mark.parametrize("schedule", ["linear", "constant", "reduce_lr_on_plateau"])
@pytest.mark.parametrize("make", [relative, wrapped(relative), ours])
def test_a_learning_rate_that_the_optimizer_computes(make, schedule):
    optimizer = make(warmup_init=True)
    before = optimizer.state_dict()
    with pytest.raises(hub.UnsupportedError, match="use the schedule 'adafactor'") as raised:
        hub.build_scheduler(schedule, optimizer, num_training_steps=10)
    assert raised.value.where == f"schedule '{schedule}'"
    assert optimizer.state_dict() == before


@pytest.mark.parametrize("make", [relative, wrapped(relative), ours])
def test_the_schedule_that_reports_it(make):
    optimizer = make()
    assert hub.build_scheduler("adafactor", optimizer).optimizer is optimizer
    with pytest.raises(hub.OptimArgsError, match="does not compute its own learning rate"):
        hub.build_scheduler("adafactor", adamw())


@pytest.mark.parametrize(
    ("schedule", "evaluates", "warned"),
    [
        ("reduce_lr_on_plateau", "no", True),
        ("reduce_lr_on_plateau", "steps", False),
        ("greedy", "no", True),
        ("greedy", "epoch", False),
        ("linear", "no", False),
    ],
)
def test_schedules_that_need_a_metric(schedule, evaluates, warned, recwarn):
    config = {"lr_scheduler_type": schedule, "eval_strategy": evaluates}
    hub.create_scheduler(adamw(), config, 10)
    assert [str(w.message) for w in recwarn] == [
        f"'{schedule}' follows a metric, and eval_strategy='no' measures "
        "none; set eval_strategy to 'steps' or 'epoch', and call step(metric) there"
    ] * warned
