"""Wrappers put names into names that do not count; a module that has such a name keeps it."""

import os

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.groups.modules import plain_names
from hub.testing import Subject
from hub.testing.comparing import assert_same
from hub.testing.kit_model import batch, loss_of
from hub.testing.subject import train


@pytest.fixture(scope="module", autouse=True)
def _one_process(tmp_path_factory):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = tmp_path_factory.mktemp("gloo") / "store"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def with_checkpoints(model):
    model.blocks[0] = checkpoint_wrapper(model.blocks[0])
    return model


def compiled(model):
    return torch.compile(model, backend="eager")


def parallel(model):
    return DistributedDataParallel(model, find_unused_parameters=True)


def everything(model):
    model.blocks[1] = compiled(model.blocks[1])
    return parallel(compiled(with_checkpoints(model)))


WRAPPERS = [parallel, nn.DataParallel, compiled, with_checkpoints, everything]


def step(model, optimizer, number):
    loss_of(model, batch(number)).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("name", ["adamw_torch", "apollo_adamw"])
def test_names_groups_and_checkpoints_are_those_of_the_plain_model(wrap, name):
    subject = Subject(name)
    model, optimizer = subject.start()
    inner = subject.model()
    wrapped = wrap(inner)
    other = subject.build(wrapped)
    assert [g["param_names"] for g in other.param_groups] == [
        g["param_names"] for g in optimizer.param_groups
    ]
    assert [g["name"] for g in other.param_groups] == [g["name"] for g in optimizer.param_groups]
    assert other.hub_plan.target_modules == optimizer.hub_plan.target_modules
    for number in range(2):  # APOLLO's projections come from the names
        step(model, optimizer, number)
        step(wrapped, other, number)
    assert_same(model, inner)
    optimizer.load_state_dict(other.state_dict())
    other.load_state_dict(optimizer.state_dict())
    step(model, optimizer, 2)
    step(wrapped, other, 2)
    assert_same(model, inner)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = nn.ModuleDict({"module": nn.Linear(4, 4), "x_orig_mod": nn.Linear(4, 4)})

    def forward(self, x):
        return self.module["x_orig_mod"](self.module["module"](x))


@pytest.mark.parametrize("wrap", [lambda m: m, parallel, compiled, nn.DataParallel])
def test_a_module_that_is_called_module_keeps_its_name(wrap):
    optimizer = hub.build("adamw_torch", wrap(Own()), lr=1e-3)
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert names == [
        "module.module.weight",
        "module.x_orig_mod.weight",
        "module.module.bias",
        "module.x_orig_mod.bias",
    ]


def test_rules_and_late_groups_know_the_plain_names():
    model = parallel(Subject("adamw_torch").model())
    rules = {"blocks.0": {"lr_scale": 0.5}}
    optimizer = hub.build("adamw_torch", model, lr=1e-3, param_rules=rules)
    model.module.frozen.requires_grad_(True)
    optimizer.add_param_group({"params": list(model.module.frozen.parameters())})
    assert optimizer.param_groups[-1]["param_names"] == ["frozen.weight", "frozen.bias"]


def test_wrappers_within_wrappers():
    model = nn.ModuleDict({"g": parallel(compiled(Own())), "module": parallel(nn.Linear(2, 2))})
    plain = plain_names(model)
    assert plain("g.module._orig_mod.module.module.weight") == "g.module.module.weight"
    assert plain("module.module.weight") == "module.weight"
    assert plain("g.module") == "g"


def test_a_run_under_ddp_goes_on_in_one_process():
    subject = Subject("apollo_adamw")
    whole, optimizer = subject.start()
    train(whole, optimizer, 4)
    half = subject.model()
    wrapped = parallel(half)
    first = subject.build(wrapped)
    for number in range(2):
        half.take_detour = number % 2 == 0
        step(wrapped, first, number)
    model, second = subject.start()
    model.load_state_dict(half.state_dict())
    second.load_state_dict(first.state_dict())
    train(model, second, 2, start=2)
    assert_same(whole, model)
