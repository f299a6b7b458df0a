"""What `hub.estimate` says beforehand is what is there afterwards."""

import pytest
import torch
from torch import nn

import hub
from hub.memory import _bytes
from hub.testing import Subject
from hub.testing.subject import LR


def arguments(subject):
    targets = {"target_modules": "all-linear"} if subject.low_rank else {}
    return {**targets, "lr": LR, **subject.spec.trial}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", hub.list_optimizers())
def test_the_estimate_is_what_a_step_takes(name, precision, monkeypatch):
    # torchao compiles its step for every shape, which takes long and changes no size.
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    subject = Subject(name, precision)
    estimated = hub.estimate(name, subject.model(), **arguments(subject))
    model, optimizer = subject.start()
    trainable = [p for p in model.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    sizes = sorted(p.nbytes for p in trainable)
    state = sum(_bytes(v) for values in optimizer.state.values() for v in values.values())
    assert estimated == hub.Estimate(
        parameters=sum(p.nbytes for p in model.parameters()),
        gradients=sum(sizes[-2:] if subject.in_backward else sizes),
        state=state,
    )


def test_a_large_model_on_the_meta_device_is_estimated_without_memory():
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(32768, 32768, bias=False) for _ in range(64)))
    elements = 64 * 32768**2
    estimated = hub.estimate("adamw_torch", model)
    assert estimated.parameters == estimated.gradients == 4 * elements
    assert estimated.state == 8 * elements + 64 * 4  # two moments, and the steps
    assert estimated.total == 16 * elements + 64 * 4
    low_rank = hub.estimate("galore_adamw", model, target_modules="all-linear", rank=128)
    assert low_rank.state < elements / 10


def test_bad_input_is_refused_as_by_build(model):
    with pytest.raises(hub.OptimArgsError, match="did you mean 'betas'"):
        hub.estimate("adamw_torch", model, beta=(0.9, 0.95))
