"""State dicts of several optimizers: by name, with a record of each, all or nothing."""

import copy

import pytest
import torch

import hub
from hub.testing.comparing import through_a_file, weights
from hub.testing.kit_model import make_model
from hub.testing.subject import train

RULES = {"blocks.0": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9}}


def trained(name="adamw_torch", rules=RULES, steps=2):
    """Return a model and its optimizer after some steps."""
    model = make_model()
    optimizer = hub.build(name, model, param_rules=rules)
    train(model, optimizer, steps)
    return model, optimizer


def test_a_record_says_who_trained_what():
    _, optimizer = trained()
    record = optimizer.state_dict()["hub"]
    names = {member["optimizer"]: set(member["names"]) for member in record["members"]}
    assert "blocks.0.attn.weight" in names["sgd"]
    assert "blocks.1.attn.weight" in names["adamw_torch"]
    assert set(record["parameters"]) == names["sgd"] | names["adamw_torch"]
    assert record["members"][1]["arguments"]["momentum"] == 0.9


def test_other_groups_of_the_same_optimizers_load():
    """Parameters are matched by name, in whichever order and groups they are."""
    model, optimizer = trained()
    saved = through_a_file(optimizer.state_dict())
    other = make_model()
    other.load_state_dict(model.state_dict())
    rules = {"conv": {"lr_scale": 1.0}, **RULES}
    resumed = hub.build("adamw_torch", other, param_rules=rules)
    resumed.load_state_dict(saved)
    train(model, optimizer, 2, 2)
    train(other, resumed, 2, 2)
    expected = weights(other)
    assert all(weight.equal(expected[name]) for name, weight in weights(model).items())


WRONG = {
    "another rule": ({"blocks.1": RULES["blocks.0"]}, "was trained by .* and is by"),
    "another optimizer": ({"blocks.0": {"optimizer": "rmsprop"}}, "by sgd .* by rmsprop now"),
}


@pytest.mark.parametrize(("rules", "says"), WRONG.values(), ids=WRONG)
def test_state_of_another_algorithm_is_refused(rules, says):
    saved = trained()[1].state_dict()
    model, optimizer = trained(rules=rules)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(hub.CheckpointError, match=says):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert str(before) == str(after)
    train(model, optimizer, 1, 2)


def test_the_state_of_one_optimizer_is_refused():
    model = make_model()
    alone = hub.build("adamw_torch", model)
    train(model, alone, 1)
    _, optimizer = trained()
    with pytest.raises(hub.CheckpointError, match=r"by adamw_torch .* by sgd now"):
        optimizer.load_state_dict(alone.state_dict())


def test_state_without_names_is_refused():
    _, optimizer = trained()
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["param_names"]
    with pytest.raises(hub.CheckpointError, match="no names of parameters"):
        optimizer.load_state_dict({k: v for k, v in saved.items() if k != "hub"})


def test_a_load_that_fails_in_the_second_member_changes_neither():
    model, optimizer = trained()
    fresh_model, fresh = trained(steps=0)
    fresh_model.load_state_dict(model.state_dict())
    second = fresh.hub_members[1]

    def fail(_):
        raise RuntimeError("no")

    second.register_load_state_dict_post_hook(fail)
    with pytest.raises(hub.CheckpointError, match="RuntimeError: no"):
        fresh.load_state_dict(optimizer.state_dict())
    assert not fresh.state
    assert fresh.param_groups[0] is fresh.hub_members[0].param_groups[0]


DAMAGE = {
    "a tensor for a shape": lambda record: record["parameters"]["conv.weight"].update(
        shape=torch.ones(3)
    ),
    "members of another kind": lambda record: record.update(members=3),
    "members without names": lambda record: record["members"][0].pop("names"),
    "parameters of nobody": lambda record: record.update(parameters={}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_a_checkpoint_error(damage):
    saved = copy.deepcopy(trained()[1].state_dict())
    damage(saved["hub"])
    _, optimizer = trained(steps=0)
    with pytest.raises(hub.CheckpointError):
        optimizer.load_state_dict(saved)
    assert not optimizer.state


def test_a_schedule_goes_on_after_loading():
    model, optimizer = trained()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 1, 2)
    schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {5e-4, 0.05}
    for member in optimizer.hub_members:
        assert all(any(g is own for own in optimizer.param_groups) for g in member.param_groups)
