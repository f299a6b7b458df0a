"""The space to tune an optimizer in: every point of it is one that `hub.build` takes."""

import json
import subprocess
import sys
import warnings
from functools import cache
from typing import Annotated

import pytest
from helpers.every_name import NAMES, subject
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import hub
from hub.arguments import Arguments, Betas, LearningRate, Search
from hub.arguments.json_schema import arguments_schema
from hub.arguments.search import ranges_of, refused
from hub.spec import Trait

MODEL = subject("adamw_torch").model()
EVERYWHERE = [*NAMES, "adamw_torch_layerwise", "muon_layerwise", "torch.optim:NAdam"]


@cache
def space_of(name):
    """Return the space of everything that a name has a range for."""
    ranges = {"lr", "weight_decay", "betas"}
    fields = hub.describe(name).arguments.model_fields
    return hub.search_space(
        name, ranges | {key for key in fields if ranges_of(fields[key])}, strict=False
    )


def plan(name, optim_args):
    targets = "all-linear" if Trait.LOW_RANK in hub.describe(name).traits else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hub.HubWarning)  # rates that muon finds high
        return hub.plan(name, MODEL, optim_args=optim_args, target_modules=targets)


@pytest.mark.parametrize("name", EVERYWHERE)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_point_of_every_space_is_valid(name, data):
    space = space_of(name)
    shares = st.floats(0, 1)
    point = data.draw(st.tuples(*[shares for _ in space.dimensions]))
    values = space.at(point)
    planned = plan(name, json.loads(json.dumps(values)))
    assert {argument.split(".")[0] for argument in values} <= {
        argument.name for argument in planned.arguments if argument.origin == "optim_args"
    } | {"rest"}


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_ends_of_every_space_are_valid_and_exact(name, share):
    space = space_of(name)
    values = space.at([share] * len(space.dimensions))
    plan(name, values)
    for one in space.dimensions:
        value = values[one.argument]
        value = value if one.index is None else value[one.index]
        assert value == (one.high if share else one.low)


def test_default_space():
    assert [one.name for one in hub.search_space("adamw_torch").dimensions] == [
        "lr",
        "betas[0]",
        "betas[1]",
        "weight_decay",
    ]
    assert [one.name for one in hub.search_space("sgd").dimensions] == ["lr", "weight_decay"]


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_is_tuned_around_the_default_except_where_it_must_not_be(name):
    found = {one.name: one for one in hub.search_space(name).dimensions}
    assert ("lr" in found) == (name != "prodigy")
    if "lr" in found:
        default = hub.describe(name).arguments.model_fields["lr"].default
        low, high = found["lr"].low, found["lr"].high
        assert high / low >= 100
        assert low <= default <= high or "sgdw" in name


@pytest.mark.parametrize(
    ("name", "arguments", "point", "values"),
    [
        ("adamw_torch", "lr", (0.5,), {"lr": 0.000548}),
        ("adamw_torch", ("betas",), (0.5, 0.25), {"betas": [0.89, 0.9247]}),
        ("ademamix", ("betas",), (0.0, 1.0), {"betas": [0.8, 0.999, 0.9999]}),
        ("prodigy", ("d_coef",), (0.5,), {"d_coef": 1.0}),
        ("muon", ("lr",), (0.0, 1.0), {"lr": 3e-4, "rest.lr": 0.01}),
        ("muon", ("rest.lr", "momentum"), (0.0, 1.0), {"momentum": 0.85, "rest.lr": 0.01}),
    ],
)
def test_what_is_asked_for(name, arguments, point, values):
    assert hub.search_space(name, arguments).at(point) == values


@pytest.mark.parametrize(
    ("name", "optim_args", "left"),
    [
        ("adamw_torch", "lr=1e-3", ["betas[0]", "betas[1]", "weight_decay"]),
        ("adamw_torch", {"betas": (0.9, 0.95)}, ["lr", "weight_decay"]),
        ("adafactor", "relative_step=True", ["weight_decay"]),  # which rules lr out
        ("muon", "lr=0.02, rest.optimizer=sgd", ["weight_decay", "rest.lr", "rest.weight_decay"]),
        (
            "muon",
            {"rest": {"optimizer": "sgd", "lr": 0.1}, "lr": 1},
            ["weight_decay", "rest.weight_decay"],
        ),
    ],
)
def test_what_is_given_is_not_tuned(name, optim_args, left):
    space = hub.search_space(name, optim_args=optim_args)
    assert [one.name for one in space.dimensions] == left


def test_without_leaves_an_argument_or_an_element_out():
    space = hub.search_space("muon")
    left = space.without(("rest.betas", "lr"))
    assert [one.name for one in left.dimensions] == ["weight_decay", "rest.lr", "rest.weight_decay"]
    assert space.without(("rest",)).dimensions == space.dimensions[:2]
    assert hub.search_space("adamw_torch").without(("betas[1]",)).at((0, 0, 0))["betas"] == [
        0.8,
        0.999,
    ]


@pytest.mark.parametrize(
    ("ask", "what", "fix"),
    [
        (lambda: hub.search_space("adamw_torch", "rank"), "no range .* 'rank'", "lr, betas, eps"),
        (lambda: hub.search_space("prodigy", ("lr",)), "no range .* 'lr'", "d_coef"),
        (lambda: hub.search_space("adamw_torch").at((0, 0)), "not a point", "weight_decay"),
        (lambda: hub.search_space("sgd").at((0, 2)), "not a point", "from 0 to 1"),
        (lambda: hub.search_space("sgd").arguments({"rank": 3}), "'rank' is not", "lr, weight"),
        (
            lambda: hub.search_space("muon", optim_args={"rest": 3}),
            "rest=3 is not a mapping",
            "rest.lr",
        ),
        (lambda: hub.search_space("adamw_torch", optim_args=3), "optim_args is a int", "mapping"),
    ],
)
def test_refusals(ask, what, fix):
    with pytest.raises(hub.OptimArgsError, match=what) as raised:
        ask()
    assert fix in raised.value.fix
    assert raised.value.where


def test_what_a_name_lacks_is_left_out_when_asked_to_be_lenient():
    assert not hub.search_space("adamw_torch", ("rank",), strict=False).dimensions


def test_unknown_names_are_refused():
    with pytest.raises(hub.UnknownOptimizerError):
        hub.search_space("adamw_torhc")


def test_needs_no_torch():
    program = (
        "import hub, sys; hub.search_space('muon').to_dict(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_forms_for_others_agree():
    space = hub.search_space("muon")
    plain = space.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    optuna, wandb = space.optuna(), space.wandb()
    for one in plain["dimensions"]:
        low, high, is_log = one["low"], one["high"], one["scale"] == "log"
        found = optuna[one["name"]]
        assert (found.low, found.high, found.log) == (low, high, is_log)
        assert wandb[one["name"]] == {
            "distribution": "log_uniform_values" if is_log else "uniform",
            "min": low,
            "max": high,
        }
    assert list(optuna) == list(wandb) == [one["name"] for one in plain["dimensions"]]


def test_missing_optuna_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna.distributions", None)
    with pytest.raises(hub.HubError, match="Optuna is not installed") as raised:
        hub.search_space("sgd").optuna()
    assert raised.value.fix == "pip install optuna"


class Own(Arguments):
    """Overrides of ranges, one field each."""

    lr: LearningRate = 2e-2
    narrow: Annotated[LearningRate, Search(1e-3, 1e-2)] = 2e-3
    nullable: LearningRate | None = 1e-2
    unset: LearningRate | None = None
    required: LearningRate
    pair: Betas | None = None
    plain: float = 1.0


def test_the_last_range_counts_and_factors_need_a_default():
    fields = Own.model_fields
    assert ranges_of(fields["lr"]) == {None: Search(6e-4, 0.2)}
    assert ranges_of(fields["narrow"]) == {None: Search(1e-3, 1e-2)}
    assert ranges_of(fields["nullable"]) == {None: Search(3e-4, 0.1)}
    assert not any(ranges_of(fields[key]) for key in ("unset", "required", "pair", "plain"))


def test_ranges_are_in_the_schema():
    found = arguments_schema(Own)["properties"]
    assert found["lr"]["x-search"] == {"low": 6e-4, "high": 0.2, "scale": "log"}
    assert found["narrow"]["x-search"] == {"low": 1e-3, "high": 1e-2, "scale": "log"}
    assert found["nullable"]["anyOf"][0]["x-search"]["high"] == 0.1
    assert "x-search" not in json.dumps([found["unset"], found["required"], found["plain"]])
    betas = arguments_schema(hub.describe("adamw_torch").arguments)["properties"]["betas"]
    assert betas["items"][1]["x-search"] == {"low": 0.9, "high": 0.999, "scale": "linear"}


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.1, float("inf"))])
def test_a_range_has_an_inside(ends):
    with pytest.raises(ValueError, match="there is no range"):
        Search(*ends)


def test_a_logarithmic_range_is_above_0():
    with pytest.raises(ValueError, match="above 0"):
        Search(0.0, 1.0)


class Beyond(Arguments):
    """Ranges that go too far: up, down, and in the second element."""

    momentum: Annotated[float, Field(ge=0, lt=1), Search(0.5, 1.0, "linear")] = 0.9
    lr: Annotated[float, Field(ge=1e-3), Search(1e-4, 1.0)] = 0.1
    betas: tuple[float, Annotated[float, Field(lt=1), Search(0.9, 1.5, "linear")]] = (0.9, 0.99)
    eps: Annotated[float, Field(gt=0), Search(1e-10, 1e-6)] = 1e-8


def test_ranges_that_an_argument_refuses_are_found():
    assert [(key, value) for key, value, _ in refused(Beyond)] == [
        ("momentum", 1.0),
        ("lr", 1e-4),
        ("betas", 1.5),
    ]
