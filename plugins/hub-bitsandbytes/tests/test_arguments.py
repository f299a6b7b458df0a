"""The arguments of the bitsandbytes names are upstream's, and wrong ones are refused."""

import inspect

import pytest
import torch
from bitsandbytes import optim
from hub_bitsandbytes.names import LION, ROWS

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import (
    arguments_match,
    builds_quietly,
    imports_nothing,
    train,
)

from .wrapped import (
    WRAPPED,
    Model,
    every_name,
    quiet_upstream,
)

LEFT_OUT = {"amsgrad", "optim_bits", "args", "is_paged", "momentum", "centered"}


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    cls, is_8bit = WRAPPED[name].cls, ROWS[name].is_8bit
    left_out = LEFT_OUT if is_8bit else {*LEFT_OUT, "min_8bit_size"}
    own = {"embeddings_32bit": True} if is_8bit else {}  # hub's own, named in the notes
    arguments_match(name, cls, left_out.intersection(inspect.signature(cls).parameters), own)
    assert ("embeddings_32bit" in " ".join(hub.describe(name).notes)) == is_8bit


def test_importing_the_hooks_imports_nothing():
    imports_nothing("hub_bitsandbytes.hooks")


def test_the_first_build_leaves_the_process_as_it_is():
    builds_quietly("adamw_8bit", "bitsandbytes.backends.cpu.ops")


@pytest.mark.parametrize(
    ("upstream", "left_out"),
    [
        ("PagedAdamW32bit", {"amsgrad": True}),
        ("RMSprop", {"momentum": 0.5}),
        ("RMSprop8bit", {"momentum": 0.5}),
        ("RMSprop32bit", {"momentum": 0.5}),
        ("PagedAdamW32bit", {"min_8bit_size": 0}),
        ("AdEMAMix", {"min_8bit_size": 0}),
        ("Lion32bit", {"min_8bit_size": 0}),
        ("RMSprop", {"min_8bit_size": 0}),
    ],
)
@quiet_upstream
def test_what_is_left_out_does_nothing(upstream, left_out):
    """When this fails, bitsandbytes has learnt something to offer."""
    models = [Model(), Model()]
    for model, arguments in zip(models, [{}, left_out], strict=True):
        optimizer = getattr(optim, upstream)(model.parameters(), lr=0.01, **arguments)
        train(model, optimizer, range(4))
    assert_same(*models)


@pytest.mark.parametrize(
    ("upstream", "left_out", "error"),
    [
        ("AdamW8bit", {"amsgrad": True}, ValueError),
        ("PagedAdamW8bit", {"amsgrad": True}, ValueError),
        ("RMSprop", {"centered": True}, NotImplementedError),
        ("RMSprop8bit", {"alpha": 0.0}, NotImplementedError),
    ],
)
def test_what_else_is_left_out_is_refused_upstream(upstream, left_out, error):
    with pytest.raises(error):
        getattr(optim, upstream)(Model().parameters(), **left_out)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("adamw_8bit", {"amsgrad": True}, "no argument 'amsgrad'"),
        ("paged_adamw_32bit", {"min_8bit_size": 0}, "no argument 'min_8bit_size'"),
        ("rmsprop_bnb", {"momentum": 0.5}, "no argument 'momentum'"),
        ("rmsprop_bnb", {"optim_bits": 8}, "no argument 'optim_bits'"),
        ("adamw_8bit", {"min_8bit_size": -1}, "greater than or equal to 0"),
        ("adamw_8bit", {"embeddings_32bit": "perhaps"}, "boolean"),
        ("adamw_8bit", {"betas": (0.9, 1.0)}, "less than 1"),
        ("rmsprop_bnb", {"alpha": 0.0}, "greater than 0"),
        ("rmsprop_bnb_8bit", {"weight_decay": -0.1}, "greater than or equal to 0"),
        ("lion_8bit", {"eps": 1e-8}, "no argument 'eps'"),
        ("ademamix", {"betas": (0.9,)}, "betas"),
        ("ademamix", {"t_alpha": 0}, "greater than 0"),
        ("ademamix", {"t_beta3": 5, "betas": (0.0, 0.999, 0.9999)}, "takes logarithms"),
        ("ademamix_8bit", {"t_beta3": 5, "betas": (0.9, 0.999, 0.0)}, "takes logarithms"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        hub.build(name, Model(), **arguments)


def test_the_upstream_schedule_of_beta3_fails_at_zero():
    optimizer = optim.AdEMAMix(Model().parameters(), betas=(0.0, 0.9, 0.99), t_beta3=5)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(80, 64)
    with pytest.raises(ValueError, match="math domain"):
        optimizer.step()


@pytest.mark.parametrize("given", ["defaults", "optim_args", "param_rules"])
def test_two_betas_leave_ademamix_its_third(given):
    pair = (0.8, 0.95)
    call = {
        "defaults": {"defaults": {"betas": pair}},
        "optim_args": {"optim_args": "betas=(0.8, 0.95)"},
        "param_rules": {"param_rules": {"embed": {"betas": pair}}},
    }[given]
    optimizer = hub.build("ademamix", Model(), **call)
    assert optimizer.param_groups[-1]["betas"] == (0.8, 0.95, 0.9999)


def test_the_upstream_class_takes_two_betas_for_a_third_of_zero():
    two, three = Model(), Model()
    train(two, optim.AdEMAMix(two.parameters(), betas=(0.8, 0.95)), range(3))
    train(three, optim.AdEMAMix(three.parameters(), betas=(0.8, 0.95, 0.0)), range(3))
    assert_same(two, three)


def test_every_lion_has_lions_betas():
    assert {hub.describe(n).arguments().betas for n, row in ROWS.items() if row.family is LION} == {
        (0.9, 0.99)
    }
