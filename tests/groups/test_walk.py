"""A plan looks at a model once."""

import torch
from torch import nn

import hub
from hub.groups.walk import Walk, one_walk, walk_of


def tied():
    model = nn.Sequential(nn.Embedding(6, 4), nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 6))
    model[2].weight = model[0].weight
    model.register_parameter("none", None)
    return model


def test_it_finds_what_torch_does():
    for model in (tied(), torch.compile(tied(), backend="eager"), nn.DataParallel(tied())):
        walk = Walk(model)
        assert [p for _, p in walk.parameters] == list(model.parameters())
        assert [name for name, _ in walk.parameters] == [n for n, _ in tied().named_parameters()]
        assert walk.modules == list(model.named_modules())


def test_a_plan_walks_once_and_the_next_one_anew(monkeypatch):
    walks = []

    def counted(self, *arguments, **keywords):
        if not arguments:
            walks.append(self)
        return named_modules(self, *arguments, **keywords)

    named_modules = nn.Module.named_modules
    model = tied()
    monkeypatch.setattr(nn.Sequential, "named_modules", counted)
    hub.plan("galore_adamw", model, target_modules="all-linear", rank=1)
    assert walks == [model]
    model.append(nn.Linear(6, 2))
    plan = hub.plan("galore_adamw", model, target_modules="all-linear", rank=1)
    assert walks == [model, model]
    assert "3" in plan.target_modules


def test_inside_another_model_is_looked_at_by_itself():
    model, other = tied(), nn.Linear(1, 1)
    with one_walk(model):
        assert walk_of(model) is walk_of(model)
        assert walk_of(other).model is other
        with one_walk(other):
            assert walk_of(other) is walk_of(other)
    assert walk_of(model) is not walk_of(model)


def test_targets_are_selected_once_for_all_that_share_them(monkeypatch):
    from hub.groups import targets

    selected, select = [], targets._selected

    def counted(*arguments, **keywords):
        selected.append(arguments)
        return select(*arguments, **keywords)

    monkeypatch.setattr(targets, "_selected", counted)
    hub.plan("muon", nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4)))
    assert len(selected) == 1
