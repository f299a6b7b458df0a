"""The conformance kit catches what it is there for: a check is trusted once it has failed."""

from importlib.metadata import entry_points

import pytest

from hub.registry import Registry
from hub.testing import CHECKS, Subject, run

CAUGHT_BY = {
    "no_class_of_its_package": ("is_optimizer", "is no class of galore-torch"),
    "keeps_its_first_lr": ("follows_lr", "not what is used"),
    "decays_everything": ("decay", "decay should move"),
    "forgets_decay": ("decay", "decay should move"),
    "ignores_betas": ("hyperparameters", "does not reach"),
    "moves_frozen": ("covers", "frozen parameters moved"),
    "forgets_on_load": ("resume", "resuming is off by"),
    "keeps_state_elsewhere": ("resume", "resuming is off by"),
    "refuses_late_groups": ("late_group", "joined later are not trained"),
    "counts_outside_of_state": ("distributed_state", "distributed state dict"),
    "pickles_an_object": ("plain_state", "is a Projector"),
    "grows": ("plain_state", "changes its size"),
    "takes_any_checkpoint": ("other_checkpoint", "is accepted"),
    "loads_without_hooks": ("other_shapes", "of other shapes is accepted"),
    "writes_into_checkpoints": ("shares_nothing", "changes the state dict that was loaded"),
    "copies_itself": ("copies", "trains otherwise than the original"),
    "sees_the_last_micro_batch": ("accumulates", "differ from one batch"),
    "hides_gradients": ("clips", "a larger loss changes clipped updates"),
    "frees_gradients": ("norm_before_step", "is said to be 0"),
    "ignores_closures": ("closures", "does not return the closure's loss"),
    "calls_closures_twice": ("closures", "and the closure"),
    "evaluates_training_weights": ("modes", "has the training weights"),
    "evaluates_its_first_average": ("evaluates", "other weights than those for evaluation"),
    "does_not_come_back": ("modes", "not close"),
    "climbs": ("trains", "the loss went from"),
    "draws_random_numbers": ("no_trace", "random numbers"),
    "prints": ("no_trace", "building printed"),
    "marks_the_model": ("no_trace", "a parameter"),
    "leaves_hooks": ("detaches", "hooks on the model's parameters are left"),
    "leaves_hooks_layerwise": ("detaches", "hooks on the model's parameters are left"),
    "silences_everybody": ("threads", "threads changed stdout"),
    "takes_any_input": ("bad_input", "should be refused"),
    "crashes_on_bad_input": ("bad_input", "no HubError"),
    "counts_by_the_call_layerwise": ("equals_eager", "differs in"),
    "keeps_gradients_layerwise": ("frees", "gradients are still there"),
    "steps_by_itself_layerwise": ("steps_once", "updated twice"),
}


@pytest.fixture(scope="module")
def registry():
    points = entry_points(group="hub_broken.optimizers")
    return Registry([_renamed(point) for point in points])


def _renamed(point):
    vars(point)["group"] = "hub.optimizers"
    return point


@pytest.mark.parametrize(("name", "caught"), CAUGHT_BY.items(), ids=CAUGHT_BY)
def test_a_broken_optimizer_is_caught(name, caught, registry):
    check, says = caught
    with pytest.raises(AssertionError, match=says):
        run(check, Subject(name, registry=registry))


def test_what_is_said_not_to_be_supported_must_be_refused(registry, monkeypatch):
    """A build that goes through although the spec does not declare the precision."""
    subject = Subject("claims_too_little", "fp16", registry=registry)
    run("refused", subject)
    monkeypatch.setattr("hub.planning.precisions.check", lambda *_: iter(()))
    with pytest.raises(AssertionError, match="should be refused"):
        run("refused", subject)


def test_every_check_catches_something():
    assert {check for check, _ in CAUGHT_BY.values()} | {"refused"} == set(CHECKS)


def test_expected_failures_are_strict(registry):
    from hub.testing import conformance

    with pytest.raises(ValueError, match="checks that do not exist"):
        conformance("climbs", registry=registry, expected_failures={"flies-climbs-fp32": "?"})
    test = conformance(
        "climbs", registry=registry, expected_failures={"trains-climbs-fp32": "it climbs"}
    )
    marks = {p.id: p.marks for p in test.pytestmark[0].args[1]}
    assert marks["trains-climbs-fp32"][0].kwargs == {"strict": True, "reason": "it climbs"}
    assert not marks["covers-climbs-fp32"]
