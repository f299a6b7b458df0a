"""One optimizer of several: its groups, state, steps and checkpoints are theirs."""

import copy
from itertools import chain

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

import hub
from hub.testing.comparing import weights
from hub.testing.kit_model import make_model
from hub.testing.subject import backward, train

BLOCK = r"blocks\.0\..*"
SGD = {BLOCK: {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9}}


def build(model=None, name="adamw_torch", rules=SGD, **arguments):
    """Return a model, and AdamW with SGD for a block."""
    model = make_model() if model is None else model
    return model, hub.build(name, model, lr=1e-2, param_rules=rules, **arguments)


def by_hand(model):
    """Return the same of torch's classes, each over groups that hub planned."""
    plan = hub.plan("adamw_torch", model, lr=1e-2, param_rules=SGD)
    named = dict(model.named_parameters())
    groups = {"adamw_torch": [], "sgd": []}
    for group in plan.groups:
        parameters = [named[p.name] for p in group.parameters]
        groups[group.optimizer].append({"params": parameters, **group.overrides})
    return [
        torch.optim.AdamW(groups["adamw_torch"], lr=1e-2),
        torch.optim.SGD(groups["sgd"], lr=0.1, momentum=0.9),
    ]


def test_equals_two_optimizers_by_hand():
    model, optimizer = build()
    other = make_model()
    pair = by_hand(other)
    for step in range(4):
        train(model, optimizer, 1, step)
        backward(other, step)
        for one in pair:
            one.step()
            one.zero_grad()
    assert all(a.equal(b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_members_are_of_their_packages_classes_and_share_the_groups():
    _, optimizer = build()
    assert [type(member) for member in optimizer.hub_members] == [
        torch.optim.AdamW,
        torch.optim.SGD,
    ]
    theirs = chain.from_iterable(member.param_groups for member in optimizer.hub_members)
    assert all(a is b for a, b in zip(optimizer.param_groups, theirs, strict=True))


def test_state_is_one_mapping():
    model, optimizer = build()
    assert not optimizer.state
    train(model, optimizer, 1)
    assert len(optimizer.state) == sum(len(member.state) for member in optimizer.hub_members)
    assert "momentum_buffer" in optimizer.state[model.blocks[0].attn.weight]
    assert "exp_avg" in optimizer.state[model.blocks[1].attn.weight]
    with pytest.raises(KeyError):
        optimizer.state[torch.nn.Parameter(torch.zeros(1))]


def test_zero_grad_reaches_all():
    model, optimizer = build()
    backward(model, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_schedule_that_looks_at_defaults_and_momentum():
    """OneCycle cycles `momentum` or `betas`, whichever the defaults have."""
    _, optimizer = build(rules={BLOCK: {"optimizer": "stable_adamw"}})
    schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    optimizer.step()
    schedule.step()
    assert len({group["lr"] for group in optimizer.param_groups}) == 1


def test_late_parameters_go_where_the_rules_send_them():
    model = make_model()
    model.blocks[0].up.requires_grad_(False)
    model, optimizer = build(model, rules={"blocks.0": {"optimizer": "sgd", "lr": 0.1}})
    late = [*model.blocks[0].up.parameters(), *model.frozen.parameters()]
    for parameter in late:
        parameter.requires_grad_(True)
    optimizer.add_param_group({"params": late})
    added = [(group["param_names"], "momentum" in group) for group in optimizer.param_groups[-2:]]
    assert added == [
        (["blocks.0.up.weight", "blocks.0.up.bias"], True),
        (["frozen.weight", "frozen.bias"], False),
    ]


def test_a_late_matrix_goes_to_muon():
    model, optimizer = build(name="muon", rules=None)
    model.frozen.requires_grad_(True)
    optimizer.add_param_group({"params": list(model.frozen.parameters())})
    muon, rest = optimizer.hub_members
    assert muon.param_groups[-1]["param_names"] == ["frozen.weight"]
    assert rest.param_groups[-1]["param_names"] == ["frozen.bias"]
    assert optimizer.param_groups[-2:] == [muon.param_groups[-1], rest.param_groups[-1]]


def test_a_parameter_that_nobody_trains_adds_nothing():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4))
    model[1].bias.requires_grad_(False)
    optimizer = hub.build("muon", model, param_rules={"0": {"optimizer": "sgd"}})
    model[1].bias.requires_grad_(True)
    before = list(optimizer.param_groups)
    with pytest.raises(hub.UnsupportedError, match=r"none of the optimizers .* 1\.bias"):
        optimizer.add_param_group({"params": [model[1].bias]})
    assert optimizer.param_groups == before


def test_without_the_model_nothing_can_be_added():
    optimizer = build()[1]
    before = list(optimizer.param_groups)
    with pytest.raises(hub.UnsupportedError, match="without its model"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    assert optimizer.param_groups == before


def test_a_group_that_one_member_refuses_is_added_to_none():
    model, optimizer = build()
    model.frozen.requires_grad_(True)
    before = list(optimizer.param_groups)
    params = [model.frozen.weight, model.blocks[0].attn.weight]  # the second is there already
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": params})
    assert optimizer.param_groups == before
    assert list(chain.from_iterable(m.param_groups for m in optimizer.hub_members)) == before


def test_copies_are_refused_until_detached():
    model, optimizer = build()
    train(model, optimizer, 1)
    with pytest.raises(hub.UnsupportedError, match="a copy of adamw_torch"):
        copy.deepcopy(optimizer)
    hub.detach(optimizer)
    copied_model, copied = copy.deepcopy((model, optimizer))
    with pytest.raises(hub.UnsupportedError, match="without its model"):
        copied.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    train(model, optimizer, 2, 1)
    train(copied_model, copied, 2, 1)
    expected = weights(copied_model)
    assert all(weight.equal(expected[name]) for name, weight in weights(model).items())


def test_detaching_the_model_detaches_all():
    model, optimizer = build(
        name="adamw_torch_layerwise", rules={BLOCK: {"optimizer": "sgd_layerwise"}}
    )
    hub.detach(model)
    backward(model, 0)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert [type(m) for m in optimizer.hub_members] == [torch.optim.AdamW, torch.optim.SGD]


def test_estimate_is_what_the_members_keep():
    model, optimizer = build(name="muon", rules={"conv": {"optimizer": "adafactor"}})
    train(model, optimizer, 1)
    found = hub.estimate("muon", make_model(), param_rules={"conv": {"optimizer": "adafactor"}})
    kept = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    assert found.state == sum(tensor.nbytes for tensor in kept)
    assert found.parameters == sum(p.nbytes for p in model.parameters())
