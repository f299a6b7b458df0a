"""The arguments of `stable_adamw` are upstream's, and wrong ones are refused."""

from importlib.metadata import requires, version
from importlib.util import find_spec

import optimi
import pytest

import hub
from hub.testing.upstream import arguments_match, imports_nothing, small_model

from .wrapped import build


def test_the_arguments_and_their_defaults_are_upstreams():
    """Upstream's learning rate has none."""
    arguments_match("stable_adamw", optimi.StableAdamW, {"gradient_release"}, {"lr": 1e-3})


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_optimi.hooks")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"gradient_release": True}, "no argument 'gradient_release'"),
        ({"foreach": True, "triton": True}, "leave one of them out"),
        ({"max_lr": 0.1}, "without decouple_lr=True"),
        ({"max_lr": 0.0, "decouple_lr": True}, "greater than 0"),
        ({"lr": 0.0, "decouple_lr": True}, "pass max_lr"),
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"eps": -1e-8}, "greater than or equal to 0"),
        ({"weight_decay": -0.1}, "greater than or equal to 0"),
        ({"kahan_sum": "perhaps"}, "boolean"),
        ({"betas": (0.9,)}, "betas"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(small_model(), **arguments)


def test_arguments_can_be_written_as_text():
    # Transformers 5.23 makes True of all of these (`bool` of a text).
    plan = hub.plan("stable_adamw", small_model(), optim_args="kahan_sum=False, decouple_lr=false")
    values = {argument.name: argument.value for argument in plan.arguments}
    assert values["kahan_sum"] is False
    assert values["decouple_lr"] is False


def test_upstream_is_as_it_was_read():
    """What is declared for it: `packaging` is not."""
    assert version("torch-optimi").startswith("0.3.")
    assert not any("packaging" in requirement for requirement in requires("torch-optimi"))
    assert find_spec("packaging")
