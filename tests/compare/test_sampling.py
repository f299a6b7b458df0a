"""Trials follow from the settings and from the outcomes so far."""

import sys

import pytest

import hub
from hub.compare import Settings
from hub.compare.execution import sampling
from hub.compare.result import Evaluation, Outcome, Purpose, Run, Status
from hub.experiments.contender import Contender

SPACE = hub.search_space("adamw_torch")


def settings(tune, sampler="sobol", seed=0):
    contenders = (Contender("adamw_torch"),)
    return Settings(contenders=contenders, tune=tune, sampler=sampler, seed=seed)


def outcome(trial, arguments, loss, status=Status.DONE):
    run = Run(
        contender="adamw_torch",
        task="llama",
        seed=0,
        steps=5,
        purpose=Purpose.TUNING,
        trial=trial,
        arguments=arguments,
    )
    evaluations = (Evaluation(0, 5.0, 0.0), Evaluation(5, loss, 1.0))
    return Outcome(run=run, status=status, evaluations=evaluations)


def bowl(arguments):
    """Return the loss of settings of which lr=1e-3 and a second beta of 0.95 are the best."""
    lr, betas = arguments.get("lr", 1e-3), arguments.get("betas", (0.9, 0.999))
    return abs(lr / 1e-3 - 1) + 10 * abs(betas[1] - 0.95)


def study(chosen, space=SPACE, loss=bowl, status=lambda _: Status.DONE):
    """Return the trials of a whole study, asking after each."""
    trials, asked = [None] * chosen.tune, []
    for trial in range(chosen.tune):
        asked = sampling.proposals(chosen, space, trials)
        trials[trial] = outcome(trial, asked[trial], loss(asked[trial]), status(asked[trial]))
    return trials


def test_sobol_knows_all_from_the_start_and_begins_with_the_defaults():
    points = sampling.proposals(settings(8), SPACE, [None] * 8)
    assert len(points) == 8
    assert points[0] == {}
    assert points == sampling.proposals(settings(8), SPACE, study(settings(8)))
    assert len({point["lr"] for point in points[1:]}) == 7


@pytest.mark.parametrize("tune", [1, 2, 5, 9, 16, 33])
def test_a_larger_budget_goes_on_where_a_smaller_one_ended(tune):
    points = sampling.proposals(settings(tune), SPACE, [None] * tune)
    assert points == sampling.proposals(settings(40), SPACE, [None] * 40)[:tune]
    assert len(points) == tune


def test_no_tuning_has_no_trials():
    assert sampling.proposals(settings(0), SPACE, []) == []


def test_trials_depend_on_the_seed_and_not_on_the_name():
    first, other = (sampling.proposals(settings(9, seed=s), SPACE, [None] * 9) for s in (0, 1))
    assert first != other
    rmsprop, stable = (hub.search_space(name, "lr") for name in ("rmsprop", "adamw_torch"))
    assert [rmsprop.at((0.25,)), stable.at((0.25,))] == [{"lr": 0.000128}, {"lr": 0.000128}]
    assert sampling.proposals(settings(9), rmsprop, [None] * 9) == sampling.proposals(
        settings(9), stable, [None] * 9
    )


def test_sobol_fills_each_dimension_evenly():
    points = sampling._sobol(len(SPACE.dimensions), 16, seed=3)
    for axis in zip(*points, strict=True):
        assert sorted(int(share * 16) for share in axis) == list(range(16))


def test_a_space_without_dimensions_repeats_the_defaults():
    nothing = SPACE.without(("lr", "betas", "weight_decay"))
    assert sampling.proposals(settings(4), nothing, [None] * 4) == [{}] * 4


@pytest.fixture
def tpe():
    pytest.importorskip("optuna", reason="Optuna is optional: only its sampler needs it")
    return settings(10, "optuna")


def test_optuna_knows_one_trial_beyond_those_done(tpe):
    trials = study(tpe)
    for done in range(tpe.tune + 1):
        asked = sampling.proposals(tpe, SPACE, [*trials[:done], *[None] * (tpe.tune - done)])
        assert asked == [one.run.arguments for one in trials[: done + 1]]
    with_gap = [*trials[:3], None, *trials[4:]]
    assert len(sampling.proposals(tpe, SPACE, with_gap)) == 4


def test_optuna_is_asked_the_same_again(tpe):
    assert study(tpe) == study(tpe)
    other = settings(10, "optuna", seed=1)
    assert study(tpe)[1].run.arguments != study(other)[1].run.arguments


def test_optuna_learns_from_losses(tpe):
    lower, higher = (
        [one.run.arguments for one in study(tpe, loss=lambda a, s=sign: s * bowl(a))]
        for sign in (1, -1)
    )
    assert lower[:2] == higher[:2]
    assert lower != higher
    many = settings(40, "optuna")
    tuned = min(bowl(one.run.arguments) for one in study(many)[1:])
    blind = min(map(bowl, sampling.proposals(settings(40), SPACE, [None] * 40)[1:]))
    assert tuned < blind


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.FAILED])
def test_optuna_goes_on_after_trials_without_a_loss(tpe, status):
    trials = study(tpe, status=lambda _: status)
    assert len({str(one.run.arguments) for one in trials}) == tpe.tune
    assert sampling.best(trials) is None


def test_optuna_avoids_what_diverges():
    def high_rates(status_of_high):
        trials = study(
            settings(40, "optuna"),
            space=hub.search_space("adamw_torch", "lr"),
            loss=lambda _: 1.0,
            status=lambda found: status_of_high if found.get("lr", 0) > 1e-3 else Status.DONE,
        )
        return sum(one.run.arguments["lr"] > 1e-3 for one in trials[20:])

    assert high_rates(Status.DIVERGED) < high_rates(Status.DONE)


def test_an_interrupted_trial_is_asked_for_again(tpe):
    trials = study(tpe)
    stopped = outcome(2, trials[2].run.arguments, 1.0, Status.INTERRUPTED)
    asked = sampling.proposals(tpe, SPACE, [*trials[:2], stopped, *[None] * 7])
    assert asked == [one.run.arguments for one in trials[:3]]


def test_optuna_stays_silent(tpe, capfd):
    sampling.proposals(tpe, SPACE, [outcome(0, {}, 1.0), *[None] * 9])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("sampler", "module", "fix"),
    [("optuna", "optuna.distributions", "pip install optuna"), ("sobol", "scipy", "hub[compare]")],
)
def test_what_is_missing_is_named(monkeypatch, sampler, module, fix):
    if module == "scipy":
        monkeypatch.setattr("hub.experiments.extra.find_spec", lambda _: None)
    else:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(hub.HubError, match="not installed") as raised:
        sampling.proposals(settings(3, sampler), SPACE, [None] * 3)
    assert fix in raised.value.fix


def test_the_best_trial_ends_lowest_and_the_first_of_equals_wins():
    trials = [
        outcome(0, {}, 2.0),
        outcome(1, {"lr": 1e-2}, 0.1, Status.DIVERGED),
        None,
        outcome(3, {"lr": 1e-3}, 1.0),
        outcome(4, {"lr": 2e-3}, 1.0),
        outcome(5, {"lr": 3e-3}, float("nan")),
        outcome(6, {"lr": 4e-3}, 0.2, Status.FAILED),
    ]
    assert sampling.best(trials).run.trial == 3
    assert sampling.best(trials[1:3]) is None
    assert sampling.best([]) is None
