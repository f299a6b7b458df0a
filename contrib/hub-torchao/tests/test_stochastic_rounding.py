"""Stochastic rounding of bf16 weights."""

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import train

from .wrapped import bf16_weights, build, by_hand, every_name, make_model

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


@every_name
def test_stochastic_rounding_resumes_exactly_with_the_random_state(name):
    def fresh():
        model = make_model(torch.bfloat16)
        return model, build(name, model, bf16_stochastic_round=True)

    straight, optimizer = fresh()
    torch.manual_seed(3)
    train(straight, optimizer, range(6))
    model, optimizer = fresh()
    torch.manual_seed(3)
    train(model, optimizer, range(3))
    saved = through_a_file([model.state_dict(), optimizer.state_dict(), torch.get_rng_state()])
    model, optimizer = fresh()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    assert_same(train(model, optimizer, range(3, 6)), straight)


def test_stochastic_rounding_of_replicas_is_refused_as_they_would_come_apart(monkeypatch):
    def replica(seed):
        model = make_model(torch.bfloat16)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # as after dropout on other data
            reference = by_hand("adamw_torch_8bit", model, bf16_stochastic_round=True)
            return train(model, reference, range(2))

    assert not torch.equal(replica(1)[0].weight, replica(2)[0].weight)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(hub.PrecisionError, match="drift apart"):
        build("adamw_torch_8bit", make_model(torch.bfloat16), bf16_stochastic_round=True)
    build("adamw_torch_8bit", make_model(torch.bfloat16))


def test_stochastic_rounding_of_fp32_weights_is_warned_of():
    with pytest.warns(hub.HubWarning, match="no parameter is bf16"):
        build("adamw_torch_8bit", make_model(), bf16_stochastic_round=True)
