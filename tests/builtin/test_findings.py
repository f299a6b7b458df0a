"""Which implementation of torch's updates hub chooses for sharded parameters (DTensors)."""

from dataclasses import replace

import pytest
from helpers.split import as_split
from torch import nn

import hub
from hub.builtin import findings
from hub.spec import BuildContext, Level, ParameterGroup, Precision


def net():
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))


def chosen(name, model, **arguments):
    planned = hub.plan(name, model, **arguments)
    return {key: planned.values[key] for key in ("foreach", "fused") if key in planned.values}


ON_CPU = [
    ("adamw_torch", {}, {"foreach": None, "fused": None}, None),
    ("adamw_torch", {"foreach": True}, {"foreach": False, "fused": True}, Level.ADJUST),
    ("adamw_torch", {"foreach": False}, {"foreach": False, "fused": None}, None),
    ("adamw_torch_fused", {}, {"foreach": None, "fused": True}, None),
    ("sgd", {"fused": True}, {"foreach": None, "fused": False}, Level.ADJUST),
    ("sgd", {"foreach": True}, {"foreach": False, "fused": None}, Level.ADJUST),
    ("adagrad", {"fused": True}, {"foreach": None, "fused": False}, Level.ADJUST),
    ("rmsprop", {"foreach": True}, {"foreach": False}, Level.ADJUST),
    ("adafactor", {"foreach": True}, {"foreach": True}, None),
]


@pytest.mark.parametrize(("name", "given", "expected", "level"), ON_CPU)
def test_on_the_cpu_only_what_was_asked_for_is_replaced(name, given, expected, level):
    assert chosen(name, as_split(net(), (4,)), **given) == expected
    assert given.items() <= chosen(name, net(), **given).items()
    levels = {finding.level for finding in hub.plan(name, as_split(net(), (4,)), **given).findings}
    assert levels - {Level.NOTE} == ({level} if level else set())


ON_CUDA = [
    ("adamw_torch", {}, {"foreach": False, "fused": True}),
    ("adamw_torch", {"fused": False}, {}),
    ("adamw_torch", {"differentiable": True}, {}),
    ("sgd", {}, {"foreach": False}),
    ("rmsprop", {}, {"foreach": False}),
    ("adafactor", {}, {}),
]


@pytest.mark.parametrize(("name", "given", "instead"), ON_CUDA)
def test_on_cuda_the_default_is_replaced_with_a_note(name, given, instead):
    model = as_split(net(), (4,))
    group = ParameterGroup(name="", parameters=tuple(model.named_parameters()), overrides={})
    precision = Precision(mode="fp32", dtypes=("fp32",), devices=("cuda",))
    context = BuildContext(model=model, groups=(group,), precision=precision)
    arguments = hub.describe(name).arguments(**given)
    found = list(findings.sharded(name, arguments, context))
    assert [dict(finding.instead) for finding in found] == [instead] * bool(instead)
    assert all(finding.level is Level.NOTE for finding in found)
    plain = tuple(net().named_parameters())
    unsharded = replace(context, groups=(replace(group, parameters=plain),))
    assert not list(findings.sharded(name, arguments, unsharded))
