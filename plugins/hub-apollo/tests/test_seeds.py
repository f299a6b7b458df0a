"""Where the random projections come from, in groups that are there from the start and later."""

import apollo_torch
import pytest
import torch
from apollo_torch.random_projector import next_seed
from hub_apollo import factory
from torch import nn

import hub
from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import gradients, groups_of, train

from .wrapped import (
    LOW_RANK,
    both_projections,
    build,
    every_projection,
    make_model,
    projector,
    resumed,
)


def first_seeds(optimizer):
    """The seed of each target's first matrix, by name, from what is saved."""
    saved = optimizer.state_dict()
    names = [name for group in saved["param_groups"] for name in group["param_names"]]
    return {
        names[number]: state["seed"] for number, state in saved["state"].items() if "seed" in state
    }


def one_by_one(model):
    """An optimizer for each parameter, as a step in the backward pass needs them."""
    whole = build(model)
    for group in whole.param_groups:
        settings = {k: v for k, v in group.items() if k not in ("params", "param_names")}
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            alone = {"params": [parameter], "param_names": [name], **settings}
            yield factory.APOLLOAdamW([alone])


def test_seeds_follow_from_names_in_every_form():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    seeds = first_seeds(optimizer)
    assert set(seeds) == {"0.weight", "2.weight"}
    assert len(set(seeds.values())) == 2
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    alone = {}
    other = make_model()
    gradients(other, 0)
    for single in one_by_one(other):
        single.step()
        alone |= first_seeds(single)
    assert alone == seeds
    assert_same(model, other)


def test_seeds_do_not_depend_on_the_order_of_groups_or_on_rules():
    model, other = make_model(), make_model()
    optimizer = build(model)
    reordered = build(other, param_rules={"2": {"lr": 0.02}})
    train(model, optimizer, [0])
    train(other, reordered, [0])
    assert first_seeds(optimizer) == first_seeds(reordered)


def test_layers_of_one_shape_have_different_projections():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    optimizer = hub.build("apollo_adamw", model, target_modules="all-linear", rank=4)
    model(torch.ones(2, 16)).sum().backward()
    optimizer.step()
    matrices = [projector(optimizer, layer.weight) for layer in model]
    assert not torch.equal(*matrices)


def test_the_upstream_class_has_one_seed_for_all_that_are_built_one_by_one():
    """When this and the next two fail, the seeds of `factory.APOLLOAdamW` may not be needed."""
    alone = [
        apollo_torch.APOLLOAdamW([{"params": [p], **LOW_RANK}]) for p in make_model().parameters()
    ]
    assert {o.state[o.param_groups[0]["params"][0]]["seed"] for o in alone} == {1}


def test_the_upstream_class_takes_no_parameter_that_comes_later():
    model = make_model()
    optimizer = apollo_torch.APOLLOAdamW([{"params": [model[0].weight], **LOW_RANK}])
    optimizer.add_param_group({"params": [model[2].weight], **LOW_RANK})
    with pytest.raises(KeyError, match="seed"):
        train(model, optimizer, [0])


def test_the_upstream_class_takes_no_parameter_that_was_frozen():
    model = make_model()
    groups = groups_of(model, (["0.weight", "2.weight"], LOW_RANK))
    model[0].weight.requires_grad_(False)
    optimizer = apollo_torch.APOLLOAdamW(groups)
    model[0].weight.requires_grad_(True)
    with pytest.raises(KeyError, match="seed"):
        train(model, optimizer, [0])


@both_projections
def test_a_group_added_later_trains_as_if_it_had_been_there(proj):
    straight, model = make_model(), make_model()
    train(straight, build(straight, proj=proj), range(4))
    model[2].weight.requires_grad_(False)
    optimizer = build(model, target_modules=["0"], proj=proj)
    model[2].weight.requires_grad_(True)
    optimizer.add_param_group(
        {"params": [model[2].weight], "param_names": ["2.weight"], "rank": 4, "name": "late"}
    )
    late = optimizer.param_groups[-1]
    assert {key: late[key] for key in LOW_RANK} == {**LOW_RANK, "proj": proj}
    assert_same(train(model, optimizer, range(4)), straight)


def test_a_plain_group_added_later_is_not_projected():
    model = make_model()
    model[3].requires_grad_(False)
    optimizer = build(model)
    model[3].requires_grad_(True)
    optimizer.add_param_group({"params": [model[3].weight], "param_names": ["3.weight"]})
    before = weights(model)
    train(model, optimizer, range(2))
    assert optimizer.state[model[3].weight]["exp_avg"].shape == model[3].weight.shape
    assert "3.weight" in moved(model, before)


def test_a_parameter_that_is_frozen_in_its_group_can_be_trained_later():
    model = make_model()
    optimizer = build(model)
    model[0].weight.requires_grad_(False)
    before = weights(model)
    train(model, optimizer, range(2))
    assert "0.weight" not in moved(model, before)
    fresh, continued = resumed(model, optimizer)
    fresh[0].weight.requires_grad_(True)
    train(fresh, continued, range(2, 4))
    assert "0.weight" in moved(fresh, before)


@every_projection
def test_neither_building_nor_training_draws_from_torchs_generator(projection):
    model = make_model()
    before = torch.get_rng_state()
    optimizer = build(model, **projection)
    assert torch.equal(torch.get_rng_state(), before)
    train(model, optimizer, range(4))  # a new projection in step 3
    model, optimizer = resumed(model, optimizer, **projection)
    train(model, optimizer, range(4, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_torchs_seed_has_no_part_in_projections():
    models = [make_model(), make_model()]
    for seed, model in enumerate(models):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            train(model, build(model), range(4))
    assert_same(*models)


def test_each_projection_is_drawn_from_the_seed_that_follows():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, range(3))
    first = optimizer.state[model[0].weight]["seed"]
    train(model, optimizer, [3])
    assert optimizer.state[model[0].weight]["seed"] == next_seed(first)
