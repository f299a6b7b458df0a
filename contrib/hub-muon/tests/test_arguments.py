"""What `muon` takes, and what it refuses."""

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import arguments_match, train

from .wrapped import Experts, matrices


def test_the_arguments_are_upstreams():
    own = {"blocks": None, "tokens_per_step": None}
    arguments_match("muon", torch.optim.Muon, other_defaults=own)


def test_all_of_them_may_come_from_text():
    text = (
        "lr=0.02, momentum=0.9, nesterov=false, ns_steps=3, ns_coefficients=(2.0, -1.5, 0.5), "
        "eps=1e-5, adjust_lr_fn=match_rms_adamw, weight_decay=0.3, blocks={'1': 8, 'experts': 4}"
    )
    given = {
        "lr": 0.02,
        "momentum": 0.9,
        "nesterov": False,
        "ns_steps": 3,
        "ns_coefficients": (2.0, -1.5, 0.5),
        "eps": 1e-5,
        "adjust_lr_fn": "match_rms_adamw",
        "weight_decay": 0.3,
        "blocks": {"1": 8},
    }
    text = text.replace(", 'experts': 4", "")
    ours, theirs = matrices(), matrices()
    train(ours, hub.build("muon", ours, optim_args=text), range(2))
    train(theirs, hub.build("muon", theirs, **given), range(2))
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lr": -1.0}, "'lr'"),
        ({"momentum": 1.0}, "'momentum'"),
        ({"ns_steps": 0}, "'ns_steps'"),
        ({"ns_steps": 100}, "'ns_steps'"),
        ({"eps": 0.0}, "'eps'"),
        ({"adjust_lr_fn": "rms"}, "'adjust_lr_fn'"),
        ({"ns_coefficients": (1.0, 2.0)}, "'ns_coefficients'"),
        ({"blocks": {"0": 0}}, "'blocks"),
        ({"blocks": 8}, "'blocks'"),
        ({"tokens_per_step": 0}, "'tokens_per_step'"),
        ({"blocks": {"1": 7}}, "1.weight has 48 rows, which blocks of 7 do not divide"),
        ({"blocks": {"9": 8}}, "'9' of blocks matches no weight"),
        ({"blocks": {"(": 8}}, "does not compile"),
        ({"param_rules": {"1": {"blocks": {"1": 8}}}}, "cannot set 'blocks' per parameter group"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_and_change_nothing(arguments, says):
    model = matrices()
    with pytest.raises(hub.HubError) as refused:
        hub.build("muon", model, **arguments)
    assert says in str(refused.value)
    assert_same(model, matrices())


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4)),
        nn.Sequential(nn.Conv1d(4, 4, 3)),
        nn.ModuleDict({"experts": Experts(2, 4, 4).requires_grad_(False), "b": nn.LayerNorm(4)}),
    ],
    ids=["embedding", "convolution", "frozen"],
)
def test_a_model_without_a_matrix_is_refused(model):
    with pytest.raises(hub.TargetModulesError, match="finds none to train, only"):
        hub.build("muon", model)
