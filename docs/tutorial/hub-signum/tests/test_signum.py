"""Signum, as hub builds it."""

import io

import pytest
import torch
from hub_signum.signum import Signum

import hub


def make_model(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8)).to(
        dtype
    )


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
        ({"target_modules": "all-linear"}, "has no use for target_modules"),
    ],
    ids=["out of range", "negative", "misspelt", "without use"],
)
def test_bad_arguments_are_refused(arguments, reason):
    with pytest.raises(hub.HubError, match=reason):
        hub.build("signum", make_model(), **arguments)


@pytest.mark.filterwarnings("ignore:.*bf16 weights:hub.HubWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_resuming_is_exact(dtype):
    straight, resumed = make_model(dtype), make_model(dtype)
    train(straight, hub.build("signum", straight), range(6))
    first = hub.build("signum", resumed)
    train(resumed, first, range(3))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = hub.build("signum", resumed)
    second.load_state_dict(torch.load(file, weights_only=True))
    train(resumed, second, range(3, 6))
    for ours, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)
