"""Checkpoints know whose they are, and find their parameters by name."""

import pytest
import torch
from helpers.models import train
from torch.distributed.checkpoint import state_dict as dcp

import hub
from hub.testing.comparing import assert_same

GALORE = {"target_modules": "mlp", "rank": 4, "update_proj_gap": 2}


def trained(make_model, name="adamw_torch", steps=3, **arguments):
    model = make_model()
    optimizer = hub.build(name, model, **{"lr": 1e-2, **arguments})
    train(model, optimizer, steps)
    return model, optimizer


def test_a_state_dict_is_signed_with_plain_data(make_model):
    _, optimizer = trained(make_model, betas=(0.8, 0.9))
    record = optimizer.state_dict()["hub"]
    assert record["version"] == hub.__version__
    assert record["optimizer"] == "adamw_torch"
    assert record["arguments"]["betas"] == (0.8, 0.9)


def test_another_optimizers_state_is_refused(make_model):
    _, adam = trained(make_model)
    _, sgd = trained(make_model, "sgd", momentum=0.9)
    before = sgd.state_dict()
    with pytest.raises(hub.CheckpointError, match="saved by adamw_torch, not sgd"):
        sgd.load_state_dict(adam.state_dict())
    assert str(sgd.state_dict()) == str(before)


def test_state_of_another_shape_is_refused_with_the_difference(make_model):
    _, saved = trained(make_model, "galore_adamw", **GALORE)
    _, other = trained(make_model, "galore_adamw", **{**GALORE, "rank": 2})
    with pytest.raises(hub.CheckpointError, match="rank 4 → 2"):
        other.load_state_dict(saved.state_dict())


def test_other_arguments_are_explained(make_model):
    _, saved = trained(make_model, lr=0.5)
    _, other = trained(make_model, lr=0.1)
    with pytest.warns(hub.HubWarning, match=r"lr 0.5 → 0.1 \(checkpoint value is used\)"):
        other.load_state_dict(saved.state_dict())
    assert other.param_groups[0]["lr"] == 0.5


def test_other_arguments_of_low_rank_groups_are_explained(make_model):
    _, saved = trained(make_model, "galore_adamw", **GALORE)
    _, other = trained(make_model, "galore_adamw", **{**GALORE, "update_proj_gap": 5})
    with pytest.warns(hub.HubWarning, match=r"update_proj_gap 2 → 5 \(checkpoint value is used\)"):
        other.load_state_dict(saved.state_dict())
    assert other.param_groups[-1]["update_proj_gap"] == 2


def test_the_fused_implementation_continues_the_plain_one(make_model):
    _, saved = trained(make_model, fused=None)
    _, other = trained(make_model, "adamw_torch_fused")
    with pytest.warns(hub.HubWarning, match="fused None → True"):
        other.load_state_dict(saved.state_dict())


def reordered(model):
    """The same parameters, registered in another order."""
    for name in ("conv", "frozen"):
        module = model._modules.pop(name)
        model._modules[name] = module
    return model


@pytest.mark.parametrize(("name", "arguments"), [("adamw_torch", {}), ("galore_adamw", GALORE)])
def test_parameters_are_found_by_name(make_model, name, arguments):
    """Modules in another order, and other groups with the same settings, continue the same run."""
    whole, _ = trained(make_model, name, steps=6, **arguments)
    half, optimizer = trained(make_model, name, **arguments)
    model = reordered(make_model())
    model.load_state_dict(half.state_dict())
    other = hub.build(name, model, lr=1e-2, **arguments)
    names = [n for group in other.param_groups for n in group["param_names"]]
    assert names != [n for group in optimizer.param_groups for n in group["param_names"]]
    other.load_state_dict(optimizer.state_dict())
    assert names == [n for group in other.param_groups for n in group["param_names"]]
    train(model, other, 3, start=3)
    for parameter, expected in whole.state_dict().items():
        torch.testing.assert_close(model.state_dict()[parameter], expected, rtol=0, atol=0)


def moments(optimizer):
    return {
        name: optimizer.state[parameter]["exp_avg"]
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }


def test_groups_may_be_split_further_but_not_joined_where_they_differ(make_model):
    _, saved = trained(make_model)
    rules = {"layers.0": {"lr_scale": 1.0}}
    _, split = trained(make_model, param_rules=rules)
    split.load_state_dict(saved.state_dict())
    assert len(split.param_groups) == 4
    assert moments(split).keys() == moments(saved).keys()
    for name, moment in moments(saved).items():
        assert torch.equal(moments(split)[name], moment), name
    _, scaled = trained(make_model, param_rules={"layers.0": {"lr_scale": 0.5}})
    _, joined = trained(make_model)
    with pytest.raises(hub.CheckpointError, match="merges parameters"):
        joined.load_state_dict(scaled.state_dict())


def test_other_parameters_are_named(make_model):
    _, saved = trained(make_model)
    other = hub.build("adamw_torch", make_model(depth=1), lr=1e-2)
    with pytest.raises(
        hub.CheckpointError, match=r"only the checkpoint has layers\.1\..* and \d+ more"
    ):
        other.load_state_dict(saved.state_dict())


def test_a_checkpoint_of_the_class_itself_loads(make_model):
    model, ours = trained(make_model)
    plain = torch.optim.AdamW([{"params": g["params"]} for g in ours.param_groups], lr=0.5)
    train(model, plain, 2)
    ours.load_state_dict(plain.state_dict())
    assert ours.param_groups[0]["lr"] == 0.5
    assert ours.param_groups[0]["name"] == "decay"
    for parameter, state in plain.state.items():
        assert torch.equal(ours.state[parameter]["exp_avg"], state["exp_avg"])
    one_group = torch.optim.AdamW(model.parameters())
    with pytest.raises(hub.CheckpointError, match="without names they cannot be matched"):
        ours.load_state_dict(one_group.state_dict())


def test_ours_loads_into_the_class_itself(make_model):
    _, ours = trained(make_model)
    plain = torch.optim.AdamW([{"params": g["params"]} for g in ours.param_groups])
    plain.load_state_dict(ours.state_dict())
    assert len(plain.state) == len(ours.state)


def test_the_callers_state_dict_is_left_alone(make_model):
    _, saved = trained(make_model, "galore_adamw", **GALORE)
    state_dict = saved.state_dict()
    before = str(state_dict)
    _, other = trained(make_model, "galore_adamw", **GALORE)
    other.load_state_dict(state_dict)
    assert str(state_dict) == before


@pytest.mark.parametrize("full", [True, False], ids=["full", "sharded"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("adamw_torch", {}), ("galore_adamw", GALORE), ("schedule_free_adamw", {})],
)
def test_distributed_checkpoint_functions_round_trip(make_model, name, arguments, full):
    options = dcp.StateDictOptions(full_state_dict=full)
    whole, _ = trained(make_model, name, steps=6, **arguments)
    half, optimizer = trained(make_model, name, **arguments)
    saved = dcp.get_optimizer_state_dict(half, optimizer, options=options)
    model = make_model()
    model.load_state_dict(half.state_dict())
    other = hub.build(name, model, lr=1e-2, **arguments)
    dcp.set_optimizer_state_dict(model, other, saved, options=options)
    assert all(isinstance(key, torch.Tensor) for key in other.state)
    train(model, other, 3, start=3)
    assert_same(whole, model)


def test_frozen_parameters_unfrozen_later_join_as_a_group(make_model):
    model, optimizer = trained(make_model)
    model.frozen.requires_grad_(True)
    named = list(model.frozen.named_parameters())
    optimizer.add_param_group(
        {"params": [p for _, p in named], "param_names": [f"frozen.{n}" for n, _ in named]}
    )
    before = model.frozen.weight.clone()
    train(model, optimizer, 1)
    assert not torch.equal(before, model.frozen.weight)


@pytest.mark.parametrize("targets", ["layers.0.mlp", "layers.1.mlp", "attn"])
def test_other_target_modules_are_refused(make_model, targets):
    _, saved = trained(make_model, "galore_adamw", **GALORE)
    _, other = trained(make_model, "galore_adamw", **{**GALORE, "target_modules": targets})
    with pytest.raises(hub.CheckpointError, match=r"low-rank|merges parameters"):
        other.load_state_dict(saved.state_dict())
