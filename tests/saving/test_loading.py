"""A state dict is loaded wholly or not at all, and says where it differs."""

import copy
import random
import re
import warnings

import pytest
import torch
from helpers.every_name import NAMES, subject
from helpers.models import train as train_other
from torch import nn

import hub
from hub.testing.comparing import through_a_file
from hub.testing.subject import train


def trained(name, steps=2, **arguments):
    model, optimizer = subject(name).start(**arguments)
    train(model, optimizer, steps)
    return model, optimizer


def picture(model, optimizer):
    """All that a refused state dict must leave alone, with the identities of what is live."""
    return (
        {name: p.detach().clone() for name, p in model.named_parameters()},
        id(optimizer.state),
        {id(p): list(state) for p, state in optimizer.state.items()},
        [id(group) for group in optimizer.param_groups],
        [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
        sorted(vars(optimizer)),
    )


def assert_untouched(model, optimizer, before):
    after = picture(model, optimizer)
    for name, value in before[0].items():
        assert torch.equal(after[0][name], value), name
    assert str(after[1:]) == str(before[1:])


def wider_twin(model):
    """A model with the same names, and parameters of other shapes."""
    other = copy.deepcopy(model)
    for module in other.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.requires_grad:
                grown = torch.cat([parameter, parameter], dim=-1)
                module._parameters[name] = nn.Parameter(grown.detach().clone())
    other.head.weight = other.embed.weight
    return other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("has_state", [False, True], ids=["fresh", "trained"])
def test_state_of_another_shape_is_refused_for_every_name(name, has_state):
    model, optimizer = trained(name)
    wider = subject(name).build(wider_twin(subject(name).model()))
    saved = wider.state_dict()
    saved["state"] = {
        number: {
            key: torch.cat([value, value], dim=-1)
            if isinstance(value, torch.Tensor) and value.ndim and value.is_floating_point()
            else value
            for key, value in state.items()
        }
        for number, state in optimizer.state_dict()["state"].items()
    }
    if not has_state:
        model, optimizer = subject(name).start()
    before = picture(model, optimizer)
    with pytest.raises(hub.CheckpointError, match=r"saved .*has shape \(|shape .*not|elements"):
        optimizer.load_state_dict(saved)
    assert_untouched(model, optimizer, before)
    train(model, optimizer, 1)


@pytest.mark.parametrize("name", ["adamw_torch", "sgd", "adafactor", "galore_adamw", "ademamix"])
def test_so_is_that_of_a_bare_class(name):
    """It has no record: the shapes of the state itself have to tell."""
    _, source = trained(name)
    saved = source.state_dict()
    del saved["hub"]
    model = wider_twin(subject(name).model())
    optimizer = subject(name).build(model)
    before = picture(model, optimizer)
    with pytest.raises(hub.CheckpointError, match=r"shape"):
        optimizer.load_state_dict(saved)
    assert_untouched(model, optimizer, before)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_record_and_fits_is_loaded(name):
    _, source = trained(name)
    saved = source.state_dict()
    del saved["hub"]
    _, optimizer = subject(name).start()
    optimizer.load_state_dict(saved)


@pytest.mark.parametrize("wide", [False, True])
def test_factors_that_keep_a_side_of_one_are_told_from_those_of_another_shape(wide):
    """As `torch.optim.Adafactor` 2.13 has them."""

    def build(side):
        model = nn.Sequential(nn.Linear(side, 8), nn.Linear(8, 4))
        return model, hub.build((torch.optim.Adafactor, {"lr": 0.01}), model)

    model, source = build(4)
    model(torch.ones(2, 4)).sum().backward()
    source.step()
    saved = source.state_dict()
    del saved["hub"]
    _, optimizer = build(8 if wide else 4)
    if wide:
        with pytest.raises(hub.CheckpointError, match=r"row_var|col_var"):
            optimizer.load_state_dict(saved)
    else:
        optimizer.load_state_dict(saved)


def storages(value):
    if isinstance(value, torch.Tensor):
        parts = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else ()
        if parts:
            return set().union(*(storages(getattr(value, part)) for part in parts))
        return {value.untyped_storage().data_ptr()} if value.numel() else set()
    if isinstance(value, dict):
        return set().union(*map(storages, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(storages, value))
    return storages(vars(value)) if hasattr(value, "__dict__") else set()


@pytest.mark.parametrize("name", NAMES)
def test_loading_shares_nothing_with_the_other_optimizer(name):
    _, source = trained(name)
    _, other = subject(name).start()
    state_dict = source.state_dict()
    other.load_state_dict(state_dict)
    taken = storages(dict(enumerate(source.state.values()))) | storages(state_dict)
    assert not storages(dict(enumerate(other.state.values()))) & taken


def test_what_is_cast_is_not_copied_twice(monkeypatch):
    """Only what is still shared is copied: fp32 moments for bf16 weights are new."""
    source = hub.build("adamw_torch", nn.Linear(8, 8), lr=1e-2)
    for group in source.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    source.step()
    other = hub.build("adamw_torch", nn.Linear(8, 8).bfloat16(), lr=1e-2, precision="bf16")
    copied = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda t: copied.append(t.shape) or clone(t))
    other.load_state_dict(source.state_dict())
    assert copied == [torch.Size([])] * 2  # the counts of steps


# Malformed state dicts


def broken_at_random(state_dict, generator):
    """Return a copy with one thing removed or replaced, somewhere."""
    result = copy.deepcopy(state_dict)
    value = result
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = generator.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and generator.random() < 0.85:
            value = inner
            continue
        if isinstance(value, dict) and generator.random() < 0.4:
            del value[key]
        else:
            value[key] = generator.choice(
                [None, "x", 3, 1.5, [], {}, [1], {"a": 1}, torch.zeros(3), torch.zeros(2, 5)]
            )
        return result


@pytest.mark.parametrize("name", NAMES)
def test_of_malformed_state_dicts_nothing_comes_but_a_checkpoint_error(name):
    """And that leaves everything as it was."""
    generator = random.Random(name)
    _, source = trained(name)
    saved = through_a_file(source.state_dict())
    model, optimizer = subject(name).start()
    refused = 0
    for _ in range(40):
        broken = broken_at_random(saved, generator)
        before = picture(model, optimizer)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", hub.HubWarning)
                optimizer.load_state_dict(broken)
        except hub.CheckpointError:
            assert_untouched(model, optimizer, before)
            refused += 1
        else:
            model, optimizer = subject(name).start()
    assert refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: {}, "has no 'param_groups'"),
        (lambda _: None, "is of type NoneType"),
        (lambda s: {**s, "hub": {}}, "'hub' has no 'version'"),
        (lambda s: {**s, "hub": 3}, "'hub' is of type int"),
        (lambda s: {**s, "state": [1]}, "'state' in the state dict is of type list"),
        (lambda s: {**s, "state": {0: 1}}, r"state\[0\] is of type int"),
        (lambda s: {**s, "param_groups": [{}]}, r"param_groups\[0\] has no 'params'"),
        (lambda s: {"param_groups": s["param_groups"]}, "has no 'state'"),
        (lambda s: {**s, "param_groups": s["param_groups"] * 2}, "appears twice in params"),
        (
            lambda s: {**s, "param_groups": [{**g, "lr": "x"} for g in s["param_groups"]]},
            "a group has lr='x', which should be a number",
        ),
        (
            lambda s: {**s, "param_groups": [{**g, "betas": 0.9} for g in s["param_groups"]]},
            "a group has betas=0.9, which should be 2 values",
        ),
        (
            lambda s: {**s, "state": {n: {"step": v["step"]} for n, v in s["state"].items()}},
            "has changed since it was saved: exp_avg, exp_avg_sq",
        ),
    ],
)
def test_malformed_state_dicts_say_what_is_wrong(change, says):
    model, optimizer = trained("adamw_torch")
    saved = optimizer.state_dict()
    before = picture(model, optimizer)
    with pytest.raises(hub.CheckpointError, match=says):
        optimizer.load_state_dict(change(saved))
    assert_untouched(model, optimizer, before)


def test_a_failure_in_the_middle_of_loading_changes_nothing(make_model):
    model = make_model()
    optimizer = hub.build("adamw_torch", model, lr=1e-2)
    train_other(model, optimizer, 1)
    before = picture(model, optimizer)

    def fails(_):
        raise KeyError("late")

    handle = optimizer.register_load_state_dict_post_hook(fails)
    with pytest.raises(hub.CheckpointError, match="KeyError: 'late'"):
        optimizer.load_state_dict(optimizer.state_dict())
    assert_untouched(model, optimizer, before)
    handle.remove()
    optimizer.load_state_dict(optimizer.state_dict())


# Parameter rules

PAIR = {"0": {"lr_scale": 0.1, "weight_decay": 0.5}}


def pair(rules=None, lr=1e-2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = hub.build("adamw_torch", model, lr=lr, weight_decay=0.1, param_rules=rules)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("saved", "live", "says"),
    [
        (None, PAIR, [r"lr 0.01 → 0.001 for 0.weight, 0.bias", "weight_decay 0.1 → 0.5 for 0.wei"]),
        (
            PAIR,
            {"1": PAIR["0"]},
            [r"lr 0.01 → 0.001 for 1.weight, 1.bias", r"lr 0.001 → 0.01 for 0.weight, 0.bias"],
        ),
        (PAIR, {"0": {"lr_scale": 0.2, "weight_decay": 0.5}}, ["lr 0.001 → 0.002 for 0.weight"]),
    ],
    ids=["lost", "moved", "changed"],
)
def test_rules_that_the_checkpoint_has_not_are_named(saved, live, says):
    source, optimizer = pair(saved), pair(live)
    names = [group["name"] for group in optimizer.param_groups]
    with pytest.warns(hub.HubWarning, match="whose values are used") as caught:
        optimizer.load_state_dict(source.state_dict())
    text = str(caught[0].message)
    for expected in says:
        assert re.search(expected, text), text
    assert caught[0].filename == __file__
    assert [group["name"] for group in optimizer.param_groups] == names
    assert len(set(names)) == len(names)
    values = {
        name: (group["lr"], group["weight_decay"])
        for group in source.param_groups
        for name in group["param_names"]
    }
    for group in optimizer.param_groups:
        for name in group["param_names"]:
            assert values[name] == (group["lr"], group["weight_decay"]), name


@pytest.mark.parametrize("live", [PAIR, {"0": {"lr": 1e-3, "weight_decay": 0.5}}])
def test_the_same_rules_are_silent_whatever_a_schedule_has_written(live):
    source, optimizer = pair(PAIR), pair(live)
    for group in (*source.param_groups, *optimizer.param_groups):
        group["initial_lr"], group["lr"] = group["lr"], group["lr"] * 0.3
    optimizer.load_state_dict(source.state_dict())
