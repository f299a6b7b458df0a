import warnings

import pytest
import torch

from hub.compare import corpus, events, training
from hub.compare.result import Point, tokens_per_second
from hub.errors import HubError


def train(settings) -> list:
    text = corpus.load(settings.data, settings.sequence_length)
    return list(training.train(settings, settings.contenders[0], text))


def of(kind, told) -> list:
    return [event for event in told if isinstance(event, kind)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
def test_events_tell_a_whole_training(settings, precision):
    told = train(settings("adamw_torch:lr=0.02", precision=precision))
    assert isinstance(told[0], events.Started)
    assert told[0].arguments["lr"] == 0.02
    assert isinstance(told[-1], events.Finished)
    assert [event.step for event in of(events.Stepped, told)] == [1, 2, 3, 4]
    before, after = of(events.Evaluated, told)
    assert (before.moment, after.moment) == ("before", "after")
    assert after.loss < before.loss
    (measured,) = of(events.Measured, told)
    moments = 2 * told[0].parameters * (2 if precision == "bf16" else 4)
    assert moments < measured.state < 1.01 * moments


def test_the_same_seed_gives_the_same_training(settings):
    losses = [
        [event.loss for event in of(events.Stepped, train(settings(seed=seed)))]
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_low_rank_optimizers_get_their_target_modules(settings):
    full, low = (
        of(events.Measured, train(settings(name)))[0].state
        for name in ("adamw_torch", "galore_adamw:rank=2")
    )
    assert low < full


def test_stepping_inside_the_backward_pass_gives_the_same_with_fewer_gradients(settings):
    eager, inside = (
        train(settings(name, max_grad_norm=0.5))
        for name in ("adamw_torch", "adamw_torch_layerwise:clipping=exact")
    )
    assert of(events.Evaluated, eager) == of(events.Evaluated, inside)
    before, after = (of(events.Measured, told)[0].gradients for told in (eager, inside))
    assert after < before == 4 * eager[0].parameters


def test_evaluation_uses_the_evaluation_weights(settings, monkeypatch):
    modes = []
    evaluate = training.Trainer._loss

    def spy(self, batch):
        modes.append((self.model.training, self.optimizer.param_groups[0]["train_mode"]))
        return evaluate(self, batch)

    monkeypatch.setattr(training.Trainer, "_loss", spy)
    train(settings("schedule_free_adamw", steps=2))
    assert [mode for mode in modes if mode[0]] == [(True, True)] * 2
    assert modes[-1] == (False, False)


def test_clipping_reaches_the_update(settings):
    free, clipped = (
        of(events.Stepped, train(settings("sgd:lr=1", max_grad_norm=norm)))[-1].loss
        for norm in (None, 1e-6)
    )
    start = of(events.Stepped, train(settings("sgd:lr=0")))[-1].loss
    assert clipped == pytest.approx(start, abs=1e-4)
    assert free != pytest.approx(start, abs=1e-2)


def test_schedule_is_followed(settings):
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
    trainer = training.Trainer(settings(), torch.device("cpu"), None, None, Schedule(), None)
    trainer._step_schedule(2.5)
    assert seen == [2.5 if watches else None]


def test_a_loss_that_is_not_finite_ends_the_training(settings):
    with pytest.raises(HubError, match=r"the loss is (nan|inf)") as caught:
        train(settings("sgd:lr=1e30"))
    assert "step" in caught.value.where


def test_speed_leaves_the_first_steps_out():
    slow = [Point(step, 1.0, 10.0) for step in range(5)]
    fast = [Point(step, 1.0, seconds) for step, seconds in enumerate([0.5, 0.5, 1.0, 4.0, 4.0])]
    assert tokens_per_second((*slow, *fast), 100) == 100
    assert tokens_per_second((*slow, *slow, *fast), 100) == pytest.approx(100 / 7)
    assert tokens_per_second(tuple(fast[:1]), 100) == 200
    assert tokens_per_second((), 100) is None


def test_warnings_of_hub_are_told_and_those_of_packages_are_not(settings, monkeypatch):
    build = training.hub.build

    def deprecated(*args, **kwargs):
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)
        return build(*args, **kwargs)

    monkeypatch.setattr(training.hub, "build", deprecated)
    told = train(settings("sgd", lr_scheduler="constant", warmup_steps=1))
    (warned,) = of(events.Warned, told)
    assert "no warm-up" in warned.message
