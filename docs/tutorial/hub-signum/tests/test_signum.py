"""Signum, as hub builds it."""

import pytest
import torch
from hub_signum.signum import Signum

import hub
from hub.testing import conformance


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))


def train(model, optimizer, steps):
    for step in steps:
        inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
        model(inputs.to(model[0].weight.dtype)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_hub_builds_the_class_itself():
    optimizer = hub.build("signum", make_model(), optim_args="momentum=0.5", weight_decay=0.1)
    assert type(optimizer) is Signum
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert groups["decay"]["param_names"] == ["0.weight", "2.weight"]
    assert groups["no_decay"]["param_names"] == ["0.bias", "2.bias"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert {group["momentum"] for group in optimizer.param_groups} == {0.5}


def test_a_step_is_the_papers():
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = hub.build("signum", model, lr=0.5, momentum=0.75, weight_decay=0.5)
    expected = torch.ones(1, 2)
    for gradient, sign in [((1.0, -4.0), (1.0, -1.0)), ((-1.0, 1.0), (-1.0, -1.0))]:
        model.weight.grad = torch.tensor([gradient])
        optimizer.step()
        expected = expected - 0.5 * (torch.tensor([sign]) + 0.5 * expected)
        torch.testing.assert_close(model.weight.detach(), expected)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"momentum": 1.0}, "less than 1"),
        ({"lr": -0.1}, "greater than or equal to 0"),
        ({"optim_args": "momentun=0.9"}, "did you mean 'momentum'"),
        ({"target_modules": "all-linear"}, "does not accept target_modules"),
    ],
    ids=["out of range", "negative", "misspelt", "without use"],
)
def test_bad_arguments_are_refused(arguments, reason):
    with pytest.raises(hub.HubError, match=reason):
        hub.build("signum", make_model(), **arguments)


test_conformance = conformance("signum")
