"""What `hub.estimate` says beforehand is what is there afterwards."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from helpers.split import as_split
from torch import nn

import hub
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.spec import Trait
from hub.testing import Subject
from hub.testing.comparing import storage_bytes
from hub.testing.subject import LR, train


def arguments(subject):
    targets = {"target_modules": "all-linear"} if Trait.LOW_RANK in subject.spec.traits else {}
    return {**targets, "lr": LR, **subject.spec.example_arguments}


def every_form():
    for name in hub.list_optimizers():
        yield name
        if has_layerwise_form(hub.describe(name)):
            yield name + LAYERWISE_SUFFIX


def a_model(subject, *, is_tied):
    model = subject.model()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # Prodigy keeps no copy of zeros, which an estimate cannot see
                parameter.fill_(0.01)
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
    assert estimated == hub.Estimate(
        parameters=sum(p.nbytes for p in model.parameters()),
        gradients=sum(sizes[-2:] if subject.in_backward else sizes),
        state=storage_bytes(optimizer.state),
        evaluation=sum(sizes) if hub.Trait.TRAIN_EVAL_MODES in subject.spec.traits else 0,
    )


def held():
    """Return the bytes of all tensors that Python knows of."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if type(item) in (torch.Tensor, nn.Parameter)]
    return storage_bytes(tensors)


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


def test_two_ranks_keep_what_is_estimated_for_them(tmp_path):
    """Before sharding for the busiest, and then on each; native, by rows and whole."""
    script = Path(__file__).with_name("estimated.py")
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}  # torchao compiles for every shape
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path / "store"], env=environment)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]


def blocks():
    return nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(8)), nn.LayerNorm(64))


def test_a_mesh_divides_what_is_elementwise():
    alone, ranks, replicated = (
        hub.estimate("adamw_torch", blocks(), mesh=mesh) for mesh in (None, (4,), (2, 4))
    )
    assert ranks == replicated
    assert (ranks.parameters, ranks.gradients) == (alone.parameters // 4, alone.gradients // 4)
    assert ranks.state - 10 * 4 == (alone.state - 10 * 4) // 4  # but for the counts of steps
    assert ranks.exchange == 0


def test_the_busiest_owner_counts():
    """8 matrices on 4 ranks are 2 for each; the norm's two vectors go to two of the ranks."""
    alone, ranks = (hub.estimate("adafactor", blocks(), mesh=mesh) for mesh in (None, (4,)))
    matrix, vector = 4 * (64 + 64), 4 * 64
    assert alone.state == 8 * matrix + 2 * vector
    assert ranks.state == 2 * matrix + vector
    # All in one bucket: what is sent and received, the stand-ins of the owner, and the new rows.
    owned, rows = 2 * 4 * 64**2 + vector, alone.parameters // 4
    assert ranks.exchange == 2 * (owned + rows) + 2 * owned + rows


@pytest.mark.parametrize("mesh", [(), 8, (0,), (1.5,), (2, 2, 2), "8", (True,)])
def test_a_mesh_is_a_shape_of_one_or_two_dimensions(mesh):
    with pytest.raises(hub.OptimArgsError, match="is not a shape") as refused:
        hub.estimate("sgd", blocks(), mesh=mesh)
    assert "(8,)" in refused.value.fix


def test_what_cannot_be_sharded_is_refused():
    with pytest.raises(hub.UnsupportedError, match="sharded already"):
        hub.estimate("sgd", as_split(blocks(), (4,)), mesh=(4,))
    model = nn.ParameterDict({"scale": nn.Parameter(torch.zeros(())), "rest": torch.zeros(4)})
    with pytest.raises(hub.UnsupportedError, match="without dimensions") as refused:
        hub.estimate("sgd", model, mesh=(4,))
    assert refused.value.where == "scale"


def test_a_model_that_holds_what_cannot_be_copied_is_estimated():
    """As FSDP2 leaves process groups in hooks, which `copy.deepcopy` cannot copy."""
    model = blocks()
    lock = threading.Lock()
    model[0].register_forward_hook(lambda *_: lock)
    model.lock = lock
    assert hub.estimate("sgd", model, momentum=0.9).state == 4 * sum(
        parameter.numel() for parameter in model.parameters()
    )
    assert model.lock is lock
    assert model[0]._forward_hooks
