"""How `apollo_adamw` finds and spreads its projections, beside upstream's way."""

from functools import partial

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import continues, gradients, train

from .wrapped import WAYS, WRAPPED, build, make_model

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@every_way
@both_dtypes
def test_it_resumes_exactly_between_refreshes(way, dtype):
    continues(build, build, model=partial(make_model, dtype), steps=7, **way)


@every_way
def test_the_layerwise_form_takes_the_same_bases(way):
    models = make_model(), make_model()
    for name, model in zip(("apollo_adamw", "apollo_adamw_layerwise"), models, strict=True):
        arguments = {**WRAPPED.arguments, **way, "target_modules": ["0", "2"]}
        train(model, hub.build(name, model, **arguments), range(12))
    assert_same(*models)


def test_a_gradient_that_is_not_finite_keeps_the_last_basis():
    model = make_model()
    optimizer = build(model, **WAYS["randomized"])
    train(model, optimizer, range(3))
    before = optimizer.state[model[0].weight]["projector"].clone()
    gradients(model, 3)  # a refresh
    model[0].weight.grad[0, 0] = torch.nan
    optimizer.step()
    assert torch.equal(optimizer.state[model[0].weight]["projector"], before)
    assert model[2].weight.isfinite().all()


def test_staggered_random_projections_are_drawn_at_different_steps():
    model = make_model()
    optimizer = build(model, **WAYS["staggered"])
    seeds = {}
    for step in range(30):
        train(model, optimizer, [step])
        for name in ("0", "2"):
            state = optimizer.state[model[int(name)].weight]
            seeds.setdefault(name, []).append(state["seed"])
    drawn = {
        name: {step for step in range(1, 30) if of[step] != of[step - 1]}
        for name, of in seeds.items()
    }
    assert all(len(steps) >= 3 for steps in drawn.values())
    assert not drawn["0"] & drawn["2"]


def test_a_weight_whose_norm_of_updates_is_limited_moves_as_the_others():
    model = make_model()
    before = weights(model)
    train(model, build(model, **WAYS["both"]), range(3))
    assert moved(model, before) == set(before)


@pytest.mark.parametrize(
    ("arguments", "noted"),
    [({"proj": "svd"}, True), ({"proj": "random"}, False), (WAYS["randomized"], False)],
    ids=["svd", "random", "randomized"],
)
def test_the_plan_says_what_the_other_way_saves(arguments, noted):
    model = nn.Linear(1024, 512, bias=False, device="meta")
    plan = hub.plan("apollo_adamw", model, target_modules="all-linear", rank=32, **arguments)
    found = [str(one) for one in plan.findings if "projection='randomized'" in str(one)]
    assert bool(found) == noted
