"""The arguments of the Schedule-Free names are upstream's, and wrong ones are refused."""

import pytest

import hub
from hub.testing.upstream import arguments_match, imports_nothing, small_model, train

from .wrapped import WRAPPED, every_name


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    own = {"compile": False} if name == "schedule_free_adamw" else {}
    arguments_match(name, WRAPPED[name].cls, other_defaults=own)


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_schedulefree.hooks")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("schedule_free_adamw", {"warmup_steps": 0.1}, "a number of optimizer steps"),
        ("schedule_free_sgd", {"warmup_steps": 100.5}, "a number of optimizer steps"),
        ("schedule_free_adamw", {"warmup_steps": -1}, "greater than or equal to 0"),
        ("schedule_free_radam", {"warmup_steps": 5}, "no argument 'warmup_steps'"),
        ("schedule_free_adamw", {"betas": (0.0, 0.9)}, "greater than 0"),
        ("schedule_free_radam", {"betas": (0.9, 0.6)}, "nothing would be trained"),
        ("schedule_free_sgd", {"momentum": 0}, "greater than 0"),
        ("schedule_free_sgd", {"momentum": 1.0}, "less than 1"),
        ("schedule_free_adamw", {"weight_lr_power": -1.0}, "greater than or equal to 0"),
        ("schedule_free_adamw", {"lr": -1.0}, "greater than or equal to 0"),
        ("schedule_free_adamw", {"foreach": "perhaps"}, "boolean"),
        ("schedule_free_adamw", {"optim_args": "warmup_steps=0.1"}, "a number of optimizer steps"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build(name, small_model(), **arguments)


def test_radam_with_its_sgd_phase_takes_any_betas():
    model = small_model()
    arguments = {"betas": (0.9, 0.5), "silent_sgd_phase": False}
    train(model, hub.build("schedule_free_radam", model, **arguments), range(3))


def test_a_whole_number_of_steps_may_be_a_float():
    optimizer = hub.build("schedule_free_adamw", small_model(), defaults={"warmup_steps": 3.0})
    assert {type(group["warmup_steps"]) for group in optimizer.param_groups} == {int}
