"""The conformance kit catches what it is there for: a check is trusted once it has failed."""

from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import EntryPoint, distribution
from pathlib import Path

import pytest
import torch
from hub_broken import hooks
from typer.testing import CliRunner

import hub
from hub.cli import app
from hub.names.registry import Registry
from hub.testing import (
    CHECKS,
    PROMISES,
    Case,
    Subject,
    cases,
    conformance,
    run,
    schedule_checks,
)
from hub.testing.matrix import names_of
from hub.testing.promises import IN_PROCESSES, LAYERWISE
from hub.testing.schedule_checks import Timetable

CAUGHT_BY = {
    "no_class_of_its_package": ("is_optimizer", "is not a class of galore-torch"),
    "keeps_its_first_lr": ("follows_lr", "not what is used"),
    "reads_the_first_lr": ("own_lr", "lr of group 'no_decay' is not what is used"),
    "decays_everything": ("decay", "which the plan does not decay"),
    "forgets_decay": ("decay", "does not move"),
    "ignores_betas": ("hyperparameters", "does not reach"),
    "reads_the_first_betas": ("hyperparameters", "alone does not reach it"),
    "lacks_a_group_key": ("hyperparameters", "no parameter group has it"),
    "routes_by_name": ("names", r"detour.weight → head.weight"),
    "changes_gradients": ("leaves_gradients", "a step changes the gradients of"),
    "moves_frozen": ("covers", "frozen parameters moved"),
    "moves_idle_parameters": ("covers", "without a gradient moved"),
    "forgets_on_load": ("resume", "resuming is off by"),
    "keeps_state_elsewhere": ("resume", "resuming is off by"),
    "refuses_late_groups": ("late_group", "joined later are not trained"),
    "forgets_late_state": ("late_group", "resuming with a late group is off"),
    "counts_outside_of_state": ("distributed_state", "distributed state dict"),
    "pickles_an_object": ("plain_state", "is a Projector"),
    "grows": ("plain_state", "changes its size"),
    "takes_any_checkpoint": ("other_checkpoint", "is accepted"),
    "loads_without_hooks": ("other_shapes", "of other shapes is accepted"),
    "writes_into_checkpoints": ("shares_nothing", "changes the state dict that was loaded"),
    "forgets_on_save": ("shares_nothing", "changes the optimizer that was saved"),
    "copies_itself": ("copies", "trains differently from the original"),
    "loses_an_attribute": ("copies", "a copy of the detached optimizer trains differently"),
    "sees_the_last_micro_batch": ("accumulates", "differ from one batch"),
    "hides_gradients": ("clips", "a larger loss changes clipped updates"),
    "frees_gradients": ("norm_before_step", "is reported as 0"),
    "ignores_closures": ("closures", "does not return the closure's loss"),
    "ignores_named_closures": ("closures", "does not return the closure's loss"),
    "calls_closures_twice": ("closures", "and the closure"),
    "evaluates_training_weights": ("modes", "has the training weights"),
    "evaluates_its_first_average": ("evaluates", "other weights than those for evaluation"),
    "does_not_come_back": ("modes", "not close"),
    "draws_in_its_step": ("data_parallel", "under ddp, rank 0 is .* off one process"),
    "norms_each_shard": ("even_shards", "under fsdp2, rank 0 is .* off one process"),
    "straddles_blocks": ("uneven_shards", "under fsdp2, rank 0 is .* off one process"),
    "needs_elements": ("empty_shards", "rank 1 of 2 fails: RuntimeError: amax"),
    "fills_idle_shards": ("dead_layers", "under fsdp2, rank 0 is .* off one process"),
    "norms_whole_tensors": ("flat_shards", "under fsdp1, rank 0 is .* off one process"),
    "logs_on_the_first_rank": ("same_keys", "the state dicts of rank 0 and 1 differ in .*logged"),
    "keeps_local_tensors": ("other_ranks", "mean in its saved state has shape"),
    "climbs": ("trains", "the loss went from"),
    "draws_random_numbers": ("no_trace", "random numbers"),
    "prints": ("no_trace", "building printed"),
    "marks_the_model": ("no_trace", "a parameter"),
    "leaves_hooks": ("detaches", "hooks on the model's parameters are left"),
    "leaves_hooks_layerwise": ("detaches", "hooks on the model's parameters are left"),
    "silences_everybody": ("threads", "threads changed stdout"),
    "takes_any_input": ("bad_input", "should be refused"),
    "crashes_on_bad_input": ("bad_input", "not a HubError"),
    "orthogonalizes_by_name": ("witnessed", "detour.weight lacks orthogonal updates"),
    "keeps_aliases": ("offloads", "offload='cpu' changes the weights"),
    "reads_the_state_of_others": ("offloads", "offload='cpu' changes the weights"),
    "keeps_parameters": ("splits", "gives other weights than fp32 does"),
    "norms_pieces": ("splits", "gives other weights than fp32 does"),
    "forgets_keys_of_groups": ("rounds", "each step rounds like the others"),
    "counts_by_the_call_layerwise": ("equals_eager", "differs in"),
    "keeps_gradients_layerwise": ("frees", "gradients are still in memory"),
    "steps_by_itself_layerwise": ("steps_once", "updated twice"),
}


SCHEDULES_CAUGHT_BY = {
    "needs_a_warmup": ("writes_rates", "warmup=0, the learning rates are"),
    "ignores_the_warmup": ("warms_up", "a warm-up of 4 steps gives"),
    "first_group_for_all": ("groups", "group 1 has"),
    "replaces_tensors": ("tensor_lr", "that were tensors are"),
    "resumes_from_the_groups": ("resume_schedule", "optimizer first, the learning rates are"),
    "forgets_late_groups": ("late_group_schedule", "get_last_lr has 2 learning rates of 3 groups"),
}


@pytest.fixture(scope="module")
def registry():
    """Hold the broken ones, which no metadata offers: nobody is to meet them by accident."""
    kinds = {"hub.optimizers": hooks.ROWS, "hub.schedulers": hooks.SCHEDULES}
    points = [
        EntryPoint(name, "hub_broken.hooks", group)
        for group, rows in kinds.items()
        for name in rows
    ]
    for point in points:
        vars(point)["dist"] = distribution("hub-broken")
    return Registry(points)


@pytest.mark.parametrize(("name", "caught"), CAUGHT_BY.items(), ids=CAUGHT_BY)
def test_a_broken_optimizer_is_caught(name, caught, registry):
    check, says = caught
    precision = "bf16" if check in ("splits", "rounds") else "fp32"
    with pytest.raises(AssertionError, match=says):
        run(check, Subject(name, precision, registry=registry, processes=2))


def test_what_is_said_not_to_be_supported_must_be_refused(registry, monkeypatch):
    """A build that goes through although the spec does not declare the precision."""
    subject = Subject("claims_too_little", "fp16", registry=registry)
    run("refused", subject)
    monkeypatch.setattr("hub.planning.single.precision_findings", lambda *_, **__: iter(()))
    with pytest.raises(AssertionError, match="should be refused"):
        run("refused", subject)


@pytest.mark.parametrize(("precision", "trained"), [("fp16", False), ("fp64", True)])
def test_dtypes_that_are_declared_are_trained(precision, trained, registry):
    """`overflows_in_fp16` declares what it cannot do."""
    case = Case("trains", Subject("overflows_in_fp16", precision, registry=registry))
    assert case in cases(["overflows_in_fp16"], registry=registry)
    with nullcontext() if trained else pytest.raises(AssertionError, match="the loss is nan"):
        run(case.check, case.subject)


def test_an_optimizer_that_trains_otherwise_beside_others_is_caught(registry):
    subject = Subject("plain", registry=registry, partner="looks_at_its_company")
    with pytest.raises(AssertionError, match="does so only when alone"):
        run("witnessed", subject)


def test_every_check_catches_something():
    assert {check for check, _ in CAUGHT_BY.values()} | {"refused"} == set(CHECKS)


def test_every_check_stands_for_a_promise_of_the_design():
    assert {check.promise for check in CHECKS.values()} == {*PROMISES, LAYERWISE}
    design = (Path(__file__).parents[2] / "docs" / "design.md").read_text(encoding="utf-8")
    assert all(f"| {promise} | " in design for promise in PROMISES)


def test_a_plugin_is_checked_in_all_that_it_offers(registry):
    assert names_of("hub_broken.hooks", registry) == sorted({*hooks.ROWS, *hooks.SCHEDULES})
    ids = [p.id for p in conformance(plugin="hub.builtin.hooks").pytestmark[0].args[1]]
    assert {"covers-sgd-fp32", "covers-sgd_layerwise-bf16", "groups-adafactor-fp32"} <= set(ids)


def test_the_environment_says_where_the_kit_runs(monkeypatch):
    def ids():
        return {p.id for p in conformance("sgd").pytestmark[0].args[1]}

    usual = ids()
    monkeypatch.setenv("HUB_TEST_DEVICE", "cpu")
    assert ids() == usual
    for device, fix in (("meta", "cpu, cuda or cuda:N"), ("cuda:99", "cpu, or a")):
        monkeypatch.setenv("HUB_TEST_DEVICE", device)
        with pytest.raises(hub.HubError) as refused:
            conformance("sgd")
        assert refused.value.where == "device"
        assert refused.value.fix.startswith(fix)


def test_cases_for_a_gpu_are_those_of_any_gpu():
    ids = {case.id.replace("-cuda:1", "-cuda") for case in cases(["sgd"], "cuda:1")}
    assert ids == {case.id for case in cases(["sgd"], "cuda")}
    assert "trains-sgd-fp32-cuda" in ids


def test_a_plugin_that_is_not_installed_is_an_error():
    with pytest.raises(hub.PluginError, match="no installed entry point") as refused:
        conformance(plugin="hub_missing.hooks")
    assert refused.value.where == "hub_missing.hooks"


@pytest.mark.parametrize(("name", "caught"), SCHEDULES_CAUGHT_BY.items(), ids=SCHEDULES_CAUGHT_BY)
def test_a_broken_schedule_is_caught(name, caught, registry):
    check, says = caught
    with pytest.raises(AssertionError, match=says):
        run(check, Timetable(name, registry))


def test_every_check_of_a_schedule_catches_something():
    assert {check for check, _ in SCHEDULES_CAUGHT_BY.values()} == set(schedule_checks.CHECKS)


test_schedules = conformance(*(name for name in hub.list_schedulers() if name != "adafactor"))


def test_the_command_takes_schedules():
    result = CliRunner().invoke(app, ["check", "cosine", "reduce_lr_on_plateau"])
    assert result.exit_code == 0
    assert result.stdout.count("kept") == 2 * len(schedule_checks.CHECKS)


def test_several_processes_are_started_only_where_they_are_asked_for(registry):
    found = {case.check for case in cases(["plain"], registry=registry, processes=2)}
    assert found - {case.check for case in cases(["plain"], registry=registry)} == IN_PROCESSES


@pytest.mark.parametrize("name", ["skips_idle_gradients", "plain"])
def test_what_is_right_passes(name, registry):
    broken = {}
    for case in cases([name], registry=registry):
        try:
            run(case.check, case.subject)
        except AssertionError as error:
            broken[case.id] = str(error)
    assert not broken


def known_as(failures, registry, monkeypatch):
    spec = replace(registry.optimizer("climbs"), known_failures=failures)
    monkeypatch.setattr(registry, "optimizer", lambda _: spec)


def test_known_failures_are_strict(registry, monkeypatch):
    known_as({"trains": "it climbs", "covers-bf16": "?"}, registry, monkeypatch)
    test = conformance("climbs", registry=registry)
    marks = {p.id: p.marks for p in test.pytestmark[0].args[1]}
    assert marks["trains-climbs-fp32"][0].kwargs == {"strict": True, "reason": "it climbs"}
    assert marks["covers-climbs-bf16"]
    assert not marks["covers-climbs-fp32"]


def test_a_known_failure_of_no_check_is_an_error(registry, monkeypatch):
    known_as({"trians": "?"}, registry, monkeypatch)
    with pytest.raises(hub.PluginError, match=r"'trians', which is not a check[\s\S]*trains"):
        cases(["climbs"], registry=registry)


@pytest.mark.parametrize(
    ("failures", "status", "says"),
    [
        ({"trains": "it climbs"}, 0, "trains-climbs-fp32: it climbs"),
        ({"trains": "it climbs", "covers": "?"}, 1, "covers-climbs-bf16 passes"),
        ({}, 1, "trains-climbs-fp32: the loss went from"),
    ],
    ids=["declared", "declared and passes", "not declared"],
)
def test_the_command_tells_known_failures_from_others(
    failures, status, says, registry, monkeypatch
):
    known_as(failures, registry, monkeypatch)
    found = [
        Case(check, Subject("climbs", precision, registry=registry))
        for check in ("trains", "covers")
        for precision in ("fp32", "bf16")
    ]
    monkeypatch.setattr("hub.testing.cases", lambda *_, **__: found)
    result = CliRunner().invoke(app, ["check", "climbs"])
    assert result.exit_code == status
    assert says in result.stdout


def test_known_failures_are_shown_and_planned():
    plan = hub.plan("schedule_free_adamw", torch.nn.Linear(2, 2))
    why = "step() uses the gradients as scratch space"
    assert any(why in finding.what for finding in plan.findings)
    shown = CliRunner().invoke(app, ["show", "schedule_free_adamw"]).stdout
    assert "leaves_gradients" in shown
