"""Exactly the planned matrices get an orthogonalized update."""

import math

import pytest
import torch
from torch import nn

import hub
from hub.testing.kit_model import make_model

from .witness import is_orthogonal, orthogonalized, updates
from .wrapped import Experts, random_gradients

SCALES = {None: lambda rows, columns: math.sqrt(max(1, rows / columns))} | {
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns))
}


def planned(optimizer):
    groups = optimizer.hub_plan.groups
    return [p.name for group in groups if group.optimizer == "muon" for p in group.parameters]


@pytest.mark.parametrize("adjust_lr_fn", SCALES, ids=str)
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_planned_matrices_and_no_other_parameters_are_orthogonalized(adjust_lr_fn, nesterov):
    model = make_model(torch.float32, "cpu")
    arguments = {"lr": 0.01, "adjust_lr_fn": adjust_lr_fn, "nesterov": nesterov}
    optimizer = hub.build("muon", model, **arguments)
    scale = SCALES[adjust_lr_fn]
    names = planned(optimizer)
    scales = {name: scale(*model.get_parameter(name).shape) for name in names}
    assert len(names) > 3
    for step in range(2):
        random_gradients(model, step)
        found = updates(model, optimizer)
        assert sorted(orthogonalized(found, scales)) == sorted(names)
        assert len(found) > len(names) + 3


def test_every_expert_and_every_block_is_orthogonalized():
    model = nn.ModuleDict({"experts": Experts(4, 32, 16), "qkv": nn.Linear(16, 48)})
    optimizer = hub.build("muon", model, lr=0.01, blocks={"qkv": 16}, adjust_lr_fn="original")
    random_gradients(model)
    found = updates(model, optimizer)
    assert is_orthogonal(found["experts.weight"], math.sqrt(2))
    assert is_orthogonal(found["qkv.weight"].view(3, 16, 16))
    assert not is_orthogonal(found["qkv.weight"])


@pytest.mark.parametrize("name", ["adamw_torch", "sgd", "adafactor"])
def test_no_matrix_of_another_optimizer_passes_for_orthogonalized(name):
    model = make_model(torch.float32, "cpu")
    optimizer = hub.build(name, model, lr=0.01)
    random_gradients(model)
    assert orthogonalized(updates(model, optimizer), {}) == []
