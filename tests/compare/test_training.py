import warnings
from dataclasses import replace

import pytest
import torch

from hub.compare import Purpose, Run, Status, tasks
from hub.compare.execution import events, training


def run_of(settings, **changes) -> Run:
    label = settings.contenders[0].label
    return Run(**{"contender": label, "task": "llama", "seed": 0, "steps": 4} | changes)


def train(settings, **changes) -> list:
    return list(training.train(settings, settings.contenders[0], run_of(settings, **changes)))


def of(kind, told) -> list:
    return [event for event in told if isinstance(event, kind)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
def test_events_tell_a_whole_training(settings, precision):
    told = train(settings("adamw_torch:lr=0.02", precision=precision))
    assert isinstance(told[0], events.Started)
    assert told[0].arguments["lr"] == 0.02
    assert told[0].changed == ("lr",)
    assert told[-1] == events.Ended(Status.DONE)
    assert [event.step for event in of(events.Stepped, told)] == [1, 2, 3, 4]
    before, after = of(events.Evaluated, told)
    assert (before.step, after.step) == (0, 4)
    assert after.loss < before.loss
    (measured,) = of(events.Measured, told)
    moments = 2 * told[0].parameters * (2 if precision == "bf16" else 4)
    assert moments < measured.state_bytes < 1.01 * moments
    assert measured.host_ms > 0
    assert measured.device_ms is None
    assert measured.bandwidth > 1e8
    assert measured.step_bytes == 2 * measured.state_bytes + 1.5 * moments


def test_the_same_seed_gives_the_same_training(settings):
    losses = [
        [event.loss for event in of(events.Stepped, train(settings(), seed=seed))]
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_what_a_run_has_chosen_goes_on_top_of_the_contender(settings):
    told = train(settings("adamw_torch:lr=0.1"), arguments={"betas": [0.5, 0.9]})
    assert told[0].arguments["betas"] == (0.5, 0.9)
    assert told[0].changed == ("lr", "betas")


def test_a_trial_measures_no_bandwidth(settings):
    (measured,) = of(events.Measured, train(settings(), purpose=Purpose.TUNING, trial=0))
    assert measured.bandwidth is None


def test_evaluations_come_after_the_steps_asked_for(settings):
    told = train(settings(evaluate_every=3), steps=7)
    assert [event.step for event in of(events.Evaluated, told)] == [0, 3, 6, 7]


def test_low_rank_optimizers_get_their_target_modules(settings):
    full, low = (
        of(events.Measured, train(settings(name)))[0].state_bytes
        for name in ("adamw_torch", "galore_adamw:rank=2")
    )
    assert low < full


def test_a_contender_has_its_own_rules(settings):
    rules = "sgd:lr=0.1,param_rules={'lm_head': {'optimizer': 'adamw_torch'}}"
    assert of(events.Measured, train(settings(rules)))[0].state_bytes > 0


def test_stepping_inside_the_backward_pass_gives_the_same_with_fewer_gradients(settings):
    eager, inside = (
        train(settings(name, max_grad_norm=0.5))
        for name in ("adamw_torch", "adamw_torch_layerwise:clipping=exact")
    )
    assert of(events.Evaluated, eager) == of(events.Evaluated, inside)
    before, after = (of(events.Measured, told)[0] for told in (eager, inside))
    assert after.gradient_bytes < before.gradient_bytes == 4 * eager[0].parameters
    assert after.host_ms is None


def test_evaluation_uses_the_evaluation_weights(settings, monkeypatch):
    modes, built = [], []
    load, build = tasks.load, training.hub.build

    def spied(*args):
        task = load(*args)

        def evaluate(model):
            averaged = not built[0].param_groups[0]["train_mode"]
            modes.append((averaged, not model.training, not torch.is_grad_enabled()))
            return task.evaluate(model)

        return replace(task, evaluate=evaluate)

    def building(*args, **kwargs):
        built.append(build(*args, **kwargs))
        return built[0]

    monkeypatch.setattr(tasks, "load", spied)
    monkeypatch.setattr(training.hub, "build", building)
    train(settings("schedule_free_adamw"))
    # Before its first step there are no other weights.
    assert modes == [(False, True, True), (True, True, True)]
    assert built[0].param_groups[0]["train_mode"]


def test_clipping_reaches_the_update(settings):
    free, clipped = (
        of(events.Stepped, train(settings("sgd:lr=1", max_grad_norm=norm)))[-1].loss
        for norm in (None, 1e-6)
    )
    start = of(events.Stepped, train(settings("sgd:lr=0")))[-1].loss
    assert clipped == pytest.approx(start, abs=1e-4)
    assert free != pytest.approx(start, abs=1e-2)


@pytest.mark.parametrize("of_contender", [True, False])
def test_schedule_is_followed(settings, of_contender):
    if of_contender:
        warming = train(settings("sgd:lr=1,lr_scheduler=constant_with_warmup,warmup_steps=4"))
    else:
        name = "constant_with_warmup"
        warming = train(settings("sgd:lr=1", lr_scheduler=name, warmup_steps=4))
    still = train(settings("sgd:lr=0"))
    losses = [[event.loss for event in of(events.Stepped, told)] for told in (warming, still)]
    same = [a == b for a, b in zip(*losses, strict=True)]
    assert same == [True, True, False, False]  # the first of the warm-up steps has rate zero


@pytest.mark.parametrize("watches", [True, False])
def test_schedules_that_watch_the_loss_get_it(settings, watches):
    class Schedule:
        if watches:

            def step(self, metrics):
                seen.append(metrics)
        else:

            def step(self):
                seen.append(None)

    seen = []
    chosen = settings()
    task = tasks.load("llama", chosen.task_options)
    trainer = training.Trainer.build(chosen, chosen.contenders[0], run_of(chosen), task)
    replace(trainer, scheduler=Schedule())._step_schedule(2.5)
    assert seen == [2.5 if watches else None]


def test_a_loss_that_is_not_finite_ends_the_training_as_diverged(settings):
    told = train(settings("sgd:lr=1e30"))
    assert told[-1].status is Status.DIVERGED
    assert told[-1].error in ("its loss is nan at step 2", "its loss is inf at step 2")
    assert told[-1].diverged_at == 2
    assert [event.step for event in of(events.Stepped, told)] == [1]


def test_warnings_of_hub_are_told_and_those_of_packages_are_not(settings, monkeypatch):
    build = training.hub.build

    def deprecated(*args, **kwargs):
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)
        return build(*args, **kwargs)

    monkeypatch.setattr(training.hub, "build", deprecated)
    told = train(settings("sgd", lr_scheduler="constant", warmup_steps=1))
    (warned,) = of(events.Warned, told)
    assert "no warm-up" in warned.message
