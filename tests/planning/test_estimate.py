"""What `hub.estimate` says beforehand is what is there afterwards."""

import gc
import subprocess
import sys

import pytest
import torch
from torch import nn

import hub
from hub.measuring import plain_tensors
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.testing import Subject
from hub.testing.subject import LR, train


def arguments(subject):
    targets = {"target_modules": "all-linear"} if subject.low_rank else {}
    return {**targets, "lr": LR, **subject.spec.example_arguments}


def every_form():
    for name in hub.list_optimizers():
        yield name
        if has_layerwise_form(hub.describe(name)):
            yield name + LAYERWISE_SUFFIX


def a_model(subject, *, is_tied):
    model = subject.model()
    if not is_tied:
        model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    return model


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", list(every_form()))
def test_the_estimate_is_what_a_step_takes(name, precision, is_tied, monkeypatch):
    # torchao compiles its step for every shape, which takes long and changes no size.
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    subject = Subject(name, precision)
    estimated = hub.estimate(name, a_model(subject, is_tied=is_tied), **arguments(subject))
    model = a_model(subject, is_tied=is_tied)
    optimizer = subject.build(model)
    train(model, optimizer, 1)
    trainable = [p for p in model.parameters() if p.requires_grad]
    sizes = sorted(p.nbytes for p in trainable)
    # Where storages are shared, as the quantization maps of bitsandbytes are, they count once.
    storages = {
        tensor.data_ptr(): tensor.untyped_storage().nbytes()
        for values in optimizer.state.values()
        for tensor in plain_tensors(values)
    }
    assert estimated == hub.Estimate(
        parameters=sum(p.nbytes for p in model.parameters()),
        gradients=sum(sizes[-2:] if subject.in_backward else sizes),
        state=sum(storages.values()),
        evaluation=sum(sizes) if hub.Trait.TRAIN_EVAL_MODES in subject.spec.traits else 0,
    )


def held():
    """Return the bytes of all tensors that Python knows of."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if type(item) in (torch.Tensor, nn.Parameter)]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_what_is_kept_during_an_evaluation_is_a_copy_of_the_weights():
    subject = Subject("schedule_free_sgd")
    estimated = hub.estimate("schedule_free_sgd", subject.model(), **arguments(subject))
    model, optimizer = subject.start()
    train(model, optimizer, 1)
    before = held()
    with hub.eval_mode(optimizer):
        assert held() - before == estimated.evaluation
    assert estimated.evaluation == sum(p.nbytes for p in model.parameters() if p.requires_grad)


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


@pytest.mark.skipif("adamw_torch_8bit" not in hub.list_optimizers(), reason="needs hub-torchao")
def test_what_compiles_its_step_can_be_estimated_again():
    """In a separate process: torch 2.13 crashes where compiled code gets fake tensors."""
    script = """
import hub
import torch

for _ in range(2):
    print(hub.estimate("adamw_torch_8bit", torch.nn.Linear(128, 128)).state)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first == second


def test_bad_input_is_refused_as_by_build(model):
    with pytest.raises(hub.OptimArgsError, match="did you mean 'betas'"):
        hub.estimate("adamw_torch", model, beta=(0.9, 0.95))
