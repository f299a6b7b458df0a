"""Stochastic rounding of bf16 weights."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import nn

import hub
from hub.repairs import seed_from
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import gradients, train

from .wrapped import Small, bf16_weights, build, by_hand, compiled, every_name, make_model

pytestmark = bf16_weights


@pytest.mark.filterwarnings("error::hub.HubWarning")
@every_name
def test_stochastic_rounding_keeps_small_updates_and_is_upstreams(name):
    arguments = {"lr": 1e-4, "weight_decay": 0.0}
    moved = {}
    for stochastic in (True, False):
        with torch.random.fork_rng():
            model = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
            nn.init.ones_(model.weight)
            optimizer = by_hand(name, model, bf16_stochastic_round=stochastic, **arguments)
            for _ in range(40):
                model.weight.grad = torch.ones_like(model.weight)
                optimizer.step()
        moved[stochastic] = 1 - model.weight.float().mean().item()
    assert moved[False] == 0.0
    assert moved[True] == pytest.approx(40 * 1e-4, rel=0.1)


class Holder(nn.Module):
    """A model of one parameter."""

    def __init__(self, parameter):
        super().__init__()
        self.parameter = parameter


def fresh(name):
    model = make_model(torch.bfloat16)
    return model, build(name, model, bf16_stochastic_round=True)


@every_name
def test_it_is_upstreams_rounding_with_the_seed_of_a_name_and_a_step(name):
    (model, optimizer), other = fresh(name), make_model(torch.bfloat16)
    alone = {  # upstream's steps can be seeded one by one
        key: by_hand(name, Holder(parameter), bf16_stochastic_round=True)
        for key, parameter in other.named_parameters()
    }
    for step in range(3):
        train(model, optimizer, [step])
        gradients(other, step)
        for key, reference in alone.items():
            with torch.random.fork_rng():
                torch.manual_seed(seed_from(f"{key} {step}"))
                reference.step()
    assert_same(model, other)


@every_name
def test_it_resumes_exactly_and_leaves_the_generator_alone(name):
    straight, optimizer = fresh(name)
    before = torch.get_rng_state()
    train(straight, optimizer, range(6))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        model, optimizer = fresh(name)
        train(model, optimizer, range(3))
        saved = through_a_file([model.state_dict(), optimizer.state_dict()])
        torch.manual_seed(3)
        model, optimizer = fresh(name)
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        assert_same(train(model, optimizer, range(3, 6)), straight)


def test_every_parameter_and_step_rounds_differently():
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False, dtype=torch.bfloat16) for _ in range(2)))
    for layer in model:
        nn.init.ones_(layer.weight)
    arguments = {"bf16_stochastic_round": True, "lr": 1e-3, "betas": (0.0, 0.0)}
    optimizer = hub.build("adamw_torch_8bit", model, weight_decay=0.0, **arguments)
    rounded = []
    for _ in range(2):
        for layer in model:
            layer.weight.grad = torch.ones_like(layer.weight)
        before = [layer.weight.detach().clone() for layer in model]
        optimizer.step()
        rounded += [
            (layer.weight != old).tolist() for layer, old in zip(model, before, strict=True)
        ]
    assert all(a != b for a, b in combinations(rounded, 2))


@compiled
@pytest.mark.parametrize("replica", [1, 2])
def test_compiled_replicas_round_alike(replica):
    model, other = Small(torch.bfloat16), Small(torch.bfloat16)
    optimizers = [
        build("adamw_torch_4bit", one, bf16_stochastic_round=True) for one in (model, other)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        train(model, optimizers[0], range(3))
        torch.manual_seed(replica)
        before = torch.get_rng_state()
        train(other, optimizers[1], range(3))
        assert torch.equal(torch.get_rng_state(), before)
    assert_same(model, other)


def test_replicas_in_two_processes_round_like_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    script = Path(__file__).with_name("replicas.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path / "store"])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]


def test_replicas_of_the_upstream_class_come_apart():
    """When this fails, `factory._Fixes.step` is not needed any more."""

    def replica(seed):
        model = make_model(torch.bfloat16)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # as after dropout on other data
            reference = by_hand("adamw_torch_8bit", model, bf16_stochastic_round=True)
            return train(model, reference, range(2))

    assert not torch.equal(replica(1)[0].weight, replica(2)[0].weight)


def test_a_closure_is_called_with_gradients_enabled():
    (model, optimizer), (other, reference) = fresh("adamw_torch_8bit"), fresh("adamw_torch_8bit")
    gradients(other, 0)
    reference.step()

    def closure():
        assert torch.is_grad_enabled()
        gradients(model, 0)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert_same(model, other)


def test_the_state_is_estimated_without_drawing_from_the_generator():
    model = make_model(torch.bfloat16)
    before = torch.get_rng_state()
    state = [
        hub.estimate("adamw_torch_8bit", model, bf16_stochastic_round=rounds).state
        for rounds in (False, True)
    ]
    assert state[0] == state[1] > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_stochastic_rounding_of_fp32_weights_is_warned_of():
    with pytest.warns(hub.HubWarning, match="no parameter is bf16"):
        build("adamw_torch_8bit", make_model(), bf16_stochastic_round=True)
