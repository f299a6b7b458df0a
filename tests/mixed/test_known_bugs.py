"""What other compositions of Muon and AdamW got wrong without an error, each with its source."""

import pytest
import torch
from helpers import mixed_ranks
from torch import nn

import hub
from hub.testing.comparing import assert_same, through_a_file, weights
from hub.testing.ranks import shared_ranks

ARGUMENTS = {"lr": 0.02, "rest": {"lr": 3e-3}}


@pytest.fixture
def built(model):
    return model, hub.build("muon", model, **ARGUMENTS)


def give_gradients(model, step=0):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def algorithms(plan):
    return {p.name: group.optimizer for group in plan.groups for p in group.parameters}


def of(optimizer, name):
    """Return the names that one of the two trains."""
    return {key for key, found in algorithms(optimizer.hub_plan).items() if found == name}


def parameters_of(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def moved(before, model):
    return {
        name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])
    }


def rates_reach_both(model, optimizer):
    """`set_lr` reached Muon only: tt-metal #56027."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights(model)
    give_gradients(model)
    optimizer.step()
    assert not moved(before, model)


def a_schedule_reaches_both(model, optimizer):
    """Likewise, as a schedule does it."""
    first = [group["lr"] for group in optimizer.param_groups]
    schedule = hub.build_scheduler("linear", optimizer, num_training_steps=4)
    for left in (0.75, 0.5, 0.25, 0.0):
        optimizer.step()
        schedule.step()
        assert [group["lr"] for group in optimizer.param_groups] == [lr * left for lr in first]


def gradients_of_both_are_freed(model, optimizer):
    """`zero_grad` missed AdamW's 13 %: KempnerForge #183."""
    give_gradients(model)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
    give_gradients(model)
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def one_state_dict_has_both(model, optimizer):
    """Only one could be loaded: torchtune #2803."""
    give_gradients(model)
    optimizer.step()
    saved = through_a_file(optimizer.state_dict())
    named = [name for group in saved["param_groups"] for name in group["param_names"]]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(named) == trained
    kept = {name for number, name in enumerate(named) if saved["state"].get(number)}
    assert kept == trained
    assert len({tuple(sorted(state)) for state in saved["state"].values()}) == 2


def arguments_reach_the_rest(model, _):
    """Its betas and eps did not: PaddleFormers #4815."""
    hub.detach(model)
    rest = {"betas": (0.5, 0.6), "eps": 1e-3, "lr": 0.1}
    optimizer = hub.build("muon", model, optim_args="rest.eps=1e-3", rest={"betas": (0.5, 0.6)})
    found = [group for group in optimizer.param_groups if "betas" in group]
    assert found
    assert all((g["betas"], g["eps"]) == (rest["betas"], rest["eps"]) for g in found)


def routes_by_module(_, __):
    """A substring sent gated norms elsewhere: marin #5647."""
    layer = nn.ModuleDict(
        {
            "gated_norm": nn.LayerNorm(8),
            "proj_norm": nn.RMSNorm(8),
            "embedded_proj": nn.Linear(8, 8),
            "norm_proj": nn.Linear(8, 8, bias=False),
            "linear_scale": nn.ParameterList([torch.ones(8, 8)]),
        }
    )
    found = algorithms(hub.plan("muon", layer, **ARGUMENTS))
    muon = {name for name, optimizer in found.items() if optimizer == "muon"}
    assert muon == {"embedded_proj.weight", "norm_proj.weight"}


class Renamed(nn.Module):
    """An embedding and a head under names of their own."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(32, 8)
        self.hidden = nn.Linear(8, 8, bias=False)
        self.to_words = nn.Linear(8, 32, bias=False)

    def get_output_embeddings(self):
        return self.to_words


def embeddings_and_heads_may_have_any_name(_, __):
    """Two names were written down: xtuner #1486."""
    found = algorithms(hub.plan("muon", Renamed(), **ARGUMENTS))
    assert found == {
        "words.weight": "adamw_torch",
        "hidden.weight": "muon",
        "to_words.weight": "adamw_torch",
    }


def no_matrix_is_an_error(_, __):
    """No parameter got Muon, and the loss fell: DeepSpeed #8438."""
    with pytest.raises(hub.TargetModulesError, match="finds none to train"):
        hub.build("muon", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), **ARGUMENTS)


def matrices_are_orthogonalized(model, optimizer):
    """Newton-Schulz never ran: DeepSpeed #8442."""
    before = weights(model)
    give_gradients(model)
    optimizer.step()
    (rate,) = {group["lr"] for group in optimizer.param_groups if "ns_steps" in group}
    for name in of(optimizer, "muon"):
        rows, columns = before[name].shape
        decayed = before[name] * (1 - rate * 0.1)
        update = (
            (decayed - model.get_parameter(name).detach()) / rate / max(1, rows / columns) ** 0.5
        )
        values = torch.linalg.svdvals(update)
        assert values.max() < 1.25
        assert values.median() > 0.6


def test_clipping_counts_both(make_model):
    """Muon's norm was clipped apart from AdamW's: DeepSpeed #7776."""
    ours, theirs = make_model(), make_model()
    optimizer = hub.build("muon", ours, **ARGUMENTS, max_grad_norm=0.5)
    reference = hub.build("muon", theirs, **ARGUMENTS)
    for step in range(3):
        for model in (ours, theirs):
            give_gradients(model, step)
        torch.nn.utils.clip_grad_norm_(parameters_of(reference), 0.5)
        optimizer.step()
        reference.step()
    assert_same(ours, theirs)


def frozen_layers_stay(model, optimizer):
    """They broke the grouping: DeepSpeed #7869."""
    before = weights(model)
    give_gradients(model)
    optimizer.step()
    assert not {name for name in moved(before, model) if name.startswith("frozen")}
    assert not {name for name in algorithms(optimizer.hub_plan) if name.startswith("frozen")}


BUGS = [
    rates_reach_both,
    a_schedule_reaches_both,
    gradients_of_both_are_freed,
    one_state_dict_has_both,
    arguments_reach_the_rest,
    routes_by_module,
    embeddings_and_heads_may_have_any_name,
    no_matrix_is_an_error,
    matrices_are_orthogonalized,
    frozen_layers_stay,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_hub_does_not_have_it(bug, built):
    bug(*built)


@pytest.mark.parametrize("case", mixed_ranks.CASES, ids=lambda case: case.__name__)
def test_two_ranks_do_not_have_it(case):
    assert shared_ranks(2).call(case) == [None, None]
