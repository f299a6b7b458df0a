"""Optimizers that hub steps itself, and whose class is laid out unlike torch's."""

from abc import ABC

import pytest
import torch

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import small_model, train

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


class AbstractFirst(ABC, torch.optim.AdamW):
    """With ABC first, as the classes of pytorch_optimizer have it."""


def trained(name, options):
    model = small_model(torch.bfloat16)
    optimizer = hub.build(name, model, lr=1e-2, **options)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.0})
    train(model, optimizer, range(3))
    return model, optimizer


def test_the_layout_is_another():
    plain = torch.optim.AdamW([torch.ones(1)])
    other = type("Other", (torch.optim.AdamW,), {})
    plain.__class__ = other
    with pytest.raises(TypeError, match="layout"):
        plain.__class__ = AbstractFirst


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw_torch", {"rounding": "split"}),
        ("adamw_torch", {"offload": "cpu"}),
        ("adamw_torch_layerwise", {}),
    ],
    ids=["rounding", "offload", "layerwise"],
)
def test_it_is_stepped_all_the_same(name, options, monkeypatch):
    expected, _ = trained(name, options)
    monkeypatch.setattr(torch.optim, "AdamW", AbstractFirst)
    model, optimizer = trained(name, options)
    assert_same(model, expected)
    assert isinstance(optimizer, AbstractFirst)
    assert type(optimizer) is not AbstractFirst
    hub.detach(optimizer)
    train(model, optimizer, [3])
    assert (type(optimizer) is AbstractFirst) == (not options)
