"""A weight that is read again after its update, in the same backward pass, is an error."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

import hub
from hub.names.registry import default_registry
from hub.spec import Trait
from hub.testing import Subject
from hub.testing.matrix import forms

WIDTH = 64
NAMES = [
    name
    for name in forms(hub.list_optimizers(), default_registry())
    if Trait.STEPS_IN_BACKWARD in hub.describe(name).traits
]


class Rereading(nn.Module):
    """Multiplies by a weight as it is, and by it detached: in backward, in the other order."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.second(linear(self.first(x), self.second.weight.detach())).square().mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_name(name):
    torch.manual_seed(0)
    model = Rereading()
    optimizer = Subject(name).build(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        model(torch.randn(2, WIDTH)).backward()
    optimizer.step()
    optimizer.zero_grad()
