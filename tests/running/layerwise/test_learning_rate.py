"""The learning rate that is used, read from how far the weights move, step by step."""

import pytest
import torch

import hub
from hub.names.registry import default_registry
from hub.spec import Trait
from hub.testing.comparing import through_a_file, weights
from hub.testing.matrix import forms
from hub.testing.subject import LR, Subject, backward

FACTORS = [1.0, 0.25, 0.5, 0.125, 0.75]


def _names():
    """Every layerwise name but those of ScheduleFree, which moves weights by averages too.

    For those the kit's `equals_eager` holds the schedule to the eager form's, bit for bit.
    """
    registry = default_registry()
    return [
        name
        for name in forms(hub.list_optimizers(), registry)
        if Trait.STEPS_IN_BACKWARD in (traits := registry.optimizer(name).traits)
        and Trait.SCHEDULE_FREE not in traits
    ]


@pytest.mark.parametrize("name", _names())
def test_the_lr_used_is_the_schedules(name):
    subject = Subject(name)
    model, optimizer = subject.start()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: FACTORS[step])
    for step in range(len(FACTORS) - 1):
        before = _vector(model)
        unit = _moved_at(LR, subject, model, optimizer, step)
        backward(model, step)
        moved = _vector(model) - before
        used = LR * (moved @ unit / (unit @ unit)).item()
        assert used == pytest.approx(LR * FACTORS[step], rel=1e-3), f"step {step}"
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def _moved_at(lr, subject, model, optimizer, step):
    """Return the movement that the eager form makes from the same state at this rate."""
    twin, eager = subject.start()
    hub.detach(eager)
    twin.load_state_dict(model.state_dict())
    eager.load_state_dict(through_a_file(optimizer.state_dict()))
    for group in eager.param_groups:
        group["lr"] = lr
    before = _vector(twin)
    backward(twin, step)
    eager.step()
    return _vector(twin) - before


def _vector(model):
    return torch.cat([value.double().flatten() for value in weights(model).values()])


def test_a_late_group_follows_the_schedule_from_its_first_update():
    subject = Subject("sgd_layerwise")
    model, optimizer = subject.start()
    schedule = hub.build_scheduler("linear", optimizer, num_training_steps=10)
    for _ in range(3):
        backward(model, 0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        model.gain.add_(0.1)  # lets gradients through to what was frozen
    model.frozen.requires_grad_(True)
    optimizer.add_param_group({"params": model.frozen.parameters(), "lr": 0.1})
    gradients = []
    handle = model.frozen.bias.register_hook(lambda gradient: gradients.append(gradient.clone()))
    before = model.frozen.bias.detach().clone()
    backward(model, 1)
    handle.remove()
    torch.testing.assert_close(model.frozen.bias.detach(), before - 0.07 * gradients[0])
