"""Results of several machines become those of one study, or are refused."""

from dataclasses import replace

import pytest

from hub.compare import merging
from hub.compare.result import Evaluation, Outcome, Purpose, Results, Run, Status, TaskRecord
from hub.compare.study_file import settings_of
from hub.errors import HubError

LLAMA = TaskRecord(name="llama", summary="", unit="nats", steps=9, tokens=8, fingerprint="f1")
DIGITS = TaskRecord(name="digits", summary="", unit="nats", steps=9, tokens=8, fingerprint="f2")


def outcome(contender="sgd", seed=0, loss=2.0, task="llama", **changes):
    run = Run(contender=contender, task=task, seed=seed, steps=9, **changes.pop("run", {}))
    evaluations = (Evaluation(0, 5.0, 0.0), Evaluation(9, loss, 1.0))
    made = Outcome(run=run, status=Status.DONE, device="A", evaluations=evaluations)
    return replace(made, **changes)


def results(*outcomes, tasks=(LLAMA,), machine="A", versions=(("torch", "2.13.0"),), **study):
    return Results(
        study={
            "contenders": list(dict.fromkeys(one.run.contender for one in outcomes)),
            **({} if tasks == (LLAMA,) else {"tasks": [task.name for task in tasks]}),
            **study,
        },
        tasks=tasks,
        versions=dict(versions),
        machines=(machine,),
        outcomes=outcomes,
    )


def losses(merged):
    return {(o.run.contender, o.run.task, o.run.seed): o.loss for o in merged.outcomes}


def test_one_result_stays_as_it_is():
    alone = results(outcome(seed=0), outcome(seed=1), seeds=2)
    assert merging.merge([alone]) == alone


def test_contenders_of_two_machines_stand_side_by_side():
    a, b = outcome("sgd", 0, 2.0), outcome("adamw_torch", 0, 1.0, device="B")
    merged = merging.merge([results(a), results(b, machine="B", device="cuda", jobs=2)])
    assert merged.contenders == ("sgd", "adamw_torch")
    assert merged.machines == ("A", "B")
    assert merged.outcomes == (a, b)
    assert merged.study == {"contenders": ["sgd", "adamw_torch"]}


def test_seeds_of_two_machines_are_seeds_of_one_study():
    parts = [
        results(outcome(seed=3), outcome(seed=4), seed=3, seeds=2),
        results(outcome(seed=0), outcome(seed=1), outcome(seed=2), seeds=3),
    ]
    merged = merging.merge(parts)
    assert [one.run.seed for one in merged.outcomes] == [0, 1, 2, 3, 4]
    settings = settings_of(merged.study, "")
    assert (settings.seed, settings.seeds) == (0, 5)


def test_tasks_of_two_machines_are_tasks_of_one_study():
    both = results(outcome(task="digits"), outcome(), tasks=(DIGITS, LLAMA))
    merged = merging.merge([results(outcome("rmsprop")), both])
    assert merged.tasks == (LLAMA, DIGITS)
    assert [(one.run.task, one.run.contender) for one in merged.outcomes] == [
        ("llama", "rmsprop"),
        ("llama", "sgd"),
        ("digits", "sgd"),
    ]


def test_order_of_files_decides_the_order_of_contenders_only():
    parts = [results(outcome(name, seed)) for name in ("sgd", "rmsprop") for seed in (1, 0)]
    parts[0] = replace(parts[0], study={**parts[0].study, "seed": 1})
    parts[2] = replace(parts[2], study={**parts[2].study, "seed": 1})
    merged, reverse = merging.merge(parts), merging.merge(parts[::-1])
    assert losses(merged) == losses(reverse)
    assert (merged.contenders, reverse.contenders) == (("sgd", "rmsprop"), ("rmsprop", "sgd"))
    nested = merging.merge([merging.merge(parts[:2]), merging.merge(parts[2:])])
    assert nested == merged


def test_trials_come_before_what_counts():
    def tuned(trial):
        return {"purpose": Purpose.TUNING, "trial": trial, "arguments": {"lr": trial / 10}}

    trials = [outcome(run=tuned(trial)) for trial in (1, 0)]
    merged = merging.merge([results(outcome(seed=1), *trials, tune=2)])
    assert [one.run.trial for one in merged.outcomes] == [0, 1, None]


def test_the_same_training_counts_once():
    merged = merging.merge([results(outcome()), results(outcome(device="B"), machine="B")])
    assert merged.outcomes == (outcome(),)


def test_another_loss_of_the_same_training_is_a_warning_and_not_a_sample():
    other = outcome(loss=2.0000001, device="B")
    diverged = outcome(status=Status.DIVERGED, error="the loss is nan", device="C")
    parts = [results(outcome()), results(other, machine="B"), results(diverged, machine="C")]
    (found,) = merging.merge(parts).outcomes
    assert found.loss == 2.0
    assert found.warnings == (
        "on B it ended at a loss of 2.0000001",
        "on C it diverged: the loss is nan",
    )


@pytest.mark.parametrize("status", [Status.FAILED, Status.INTERRUPTED, Status.NOT_STARTED])
def test_what_ended_takes_the_place_of_what_did_not(status):
    cut, done = outcome(status=status, evaluations=()), outcome(device="B")
    for parts in ([results(cut), results(done)], [results(done), results(cut)]):
        assert merging.merge(parts).outcomes == (done,)
    assert merging.merge([results(cut), results(cut)]).outcomes == (cut,)


def test_versions_that_differ_name_their_machines():
    newer = (("torch", "2.14.0"), ("python", "3.12"), ("muon", "1"))
    merged = merging.merge(
        [
            results(outcome(), versions=(("torch", "2.13.0"), ("python", "3.12"))),
            results(outcome(seed=1), versions=newer, machine="B", seed=1),
            results(outcome(seed=2), versions=newer, machine="C", seed=2),
        ]
    )
    assert merged.versions == {
        "torch": "2.13.0 on A; 2.14.0 on B and C",
        "python": "3.12",
        "muon": "1",
    }


OTHER = {
    "steps": 8,
    "tune": 3,
    "tune_arguments": ["lr"],
    "sampler": "optuna",
    "target": 1.5,
    "evaluate_every": 3,
    "target_modules": "mlp",
    "lr_scheduler": "cosine",
    "max_grad_norm": 1.0,
    "precision": "bf16-mixed",
}


@pytest.mark.parametrize("key", OTHER)
def test_settings_that_losses_depend_on_must_be_the_same(key):
    parts = [results(outcome()), results(outcome("rmsprop"), **{key: OTHER[key]})]
    with pytest.raises(HubError, match=f"{key} differs: ") as raised:
        merging.merge(parts, ["one/", "two/"])
    assert raised.value.where == "one/ and two/"
    assert raised.value.fix


def test_each_setting_that_must_be_the_same_is_tested():
    assert {*OTHER, "warmup_steps"} == set(merging.ALIKE)
    parts = [
        results(outcome(), lr_scheduler="linear"),
        results(outcome("rmsprop"), lr_scheduler="linear", warmup_steps=3),
    ]
    with pytest.raises(HubError, match="warmup_steps differs: 0 and 3"):
        merging.merge(parts)


@pytest.mark.parametrize(
    ("key", "value"),
    [("fingerprint", "f9"), ("steps", 8), ("tokens", 9), ("unit", "bits"), ("target", 1.0)],
)
def test_tasks_of_one_name_must_be_the_same(key, value):
    other = results(outcome("rmsprop"), tasks=(replace(LLAMA, **{key: value}),))
    with pytest.raises(HubError, match=f"the {key} of task llama differs") as raised:
        merging.merge([results(outcome()), other])
    assert raised.value.where == "results 1 and results 2"


def test_contenders_of_one_label_must_be_the_same():
    a, b = (
        results(outcome("mine"), contenders=[{"name": "sgd", "optim_args": rate, "label": "mine"}])
        for rate in ("lr=0.1", "lr=0.2")
    )
    with pytest.raises(HubError, match=r"contender mine differs: .*0\.1.*0\.2"):
        merging.merge([a, b])


def test_tuned_studies_must_have_one_first_seed():
    parts = [results(outcome(seed=s), tune=2, seed=s) for s in (0, 5)]
    with pytest.raises(HubError, match="seed differs: 0 and 5"):
        merging.merge(parts)


def test_nothing_is_not_merged():
    with pytest.raises(HubError, match="no results to merge"):
        merging.merge([])


def test_results_without_a_study_are_refused():
    broken = replace(results(outcome()), study={"contenders": ["sgd"], "stepz": 3})
    with pytest.raises(HubError, match="stepz"):
        merging.merge([broken], ["a.json"])
