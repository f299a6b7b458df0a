"""What `hub.testing.upstream` compares fails where the two sides differ."""

import os

import pytest
import torch

from hub.testing.comparing import assert_same
from hub.testing.upstream import (
    Wrapped,
    arguments_match,
    builds_quietly,
    by_distributed,
    by_file,
    by_pickle,
    continues,
    equals_class,
    groups_of,
    imports_nothing,
    small_model,
    train,
)

SGD = Wrapped("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1})
RULE = {"lr": 0.5, "weight_decay": 0.3}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equal_classes_pass(dtype):
    (model, optimizer), (other, reference) = equals_class(SGD, dtype=dtype, nesterov=True)
    assert model[0].weight.dtype == dtype
    assert_same(train(model, optimizer, [8]), train(other, reference, [8]))


def test_groups_with_their_own_settings_are_compared():
    ours = {"param_rules": {r"2\.weight": RULE}}
    equals_class(SGD, own=[(["2.weight"], RULE)], ours=ours)
    with pytest.raises(AssertionError, match=r"differs by"):
        equals_class(SGD, ours=ours)


@pytest.mark.parametrize(
    ("wrapped", "says"),
    [
        (Wrapped("sgd", torch.optim.SGD, {"lr": 0.1}, theirs={"lr": 0.2}), "differs by"),
        (Wrapped("sgd", torch.optim.SGD, {"lr": 0.1}, ours={"momentum": 0.9}), "differs by"),
        (Wrapped("sgd", torch.optim.Adagrad, {"lr": 0.1}), "is not a subclass of"),
    ],
    ids=["theirs", "ours", "class"],
)
def test_classes_that_differ_fail(wrapped, says):
    with pytest.raises(AssertionError, match=says):
        equals_class(wrapped)


@pytest.mark.parametrize("hand_over", [by_file, by_pickle, by_distributed])
def test_a_run_continues(hand_over):
    _, optimizer = continues(SGD.by_hand, SGD.build, SGD.build, hand_over=hand_over)
    assert len(optimizer.state) == len(list(small_model().parameters()))


def weights_only(saved, fresh):
    fresh[0].load_state_dict(saved[0].state_dict())


def test_a_run_that_loses_its_state_does_not_continue():
    with pytest.raises(AssertionError, match="differs by"):
        continues(SGD.build, SGD.build, hand_over=weights_only)


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = small_model()
    model[1].requires_grad_(False)
    model[0].bias.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    assert groups_of(model) == [{"params": [model[0].weight, model[2].weight]}]


class Class:
    """As `sgd` takes its arguments, but for one of its own."""

    def __init__(self, params, lr=1e-3, momentum=0.0, amsgrad=False):
        """Take nothing."""


@pytest.mark.parametrize(
    ("left_out", "own", "says"),
    [
        ({"amsgrad"}, {}, "sgd takes"),
        ({"amsgrad", "gone"}, {}, r"leaves out \['gone'\]"),
        ({"amsgrad"}, {"momentum": 0.0}, r"has the defaults of Class in \['momentum'\]"),
    ],
    ids=["more arguments", "nothing to leave out", "no other default"],
)
def test_arguments_that_do_not_match_fail(left_out, own, says):
    with pytest.raises(AssertionError, match=says):
        arguments_match("sgd", Class, left_out, own)


def test_the_arguments_that_hub_adds_do_not_count():
    arguments_match("adamw_torch", torch.optim.AdamW, (), {"compile": False})


HOOKS = """
import sys, hub
{importing}

@hub.hookimpl
def hub_register_optimizers():
    from pydantic import BaseModel
    class Arguments(BaseModel):
        lr: float = 0.1
    return [hub.OptimizerSpec(name="noisy", summary="Noisy", arguments=Arguments, package="noisy")]

@hub.hookimpl
def hub_build_optimizer(context):
    import torch
    {building}
    cls = type("Noisy", (torch.optim.SGD,), {{"__module__": "noisy"}})
    return cls(context.param_groups(), lr=0.1)
"""


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """Install a plugin, for fresh processes too, with statements that run where they should not."""

    def install(importing="", building=""):
        info = tmp_path / "noisy-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[hub.optimizers]\nnoisy = noisy\n")
        (tmp_path / "noisy.py").write_text(HOOKS.format(importing=importing, building=building))
        monkeypatch.syspath_prepend(tmp_path)
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", path)

    return install


def test_hooks_that_import_nothing_pass(noisy):
    noisy()
    imports_nothing("noisy")
    builds_quietly("noisy")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("import torch", r"imports \['torch'\]"),
        ("print('hello')", "hello"),
        ("import warnings; warnings.simplefilter('ignore')", "the filters of warnings"),
        ("import logging; logging.basicConfig()", "a logger"),
        ("import os; os.environ['NOISE'] = '1'", "the environment"),
        ("import random; random.random()", "Python's random numbers"),
        ("raise ValueError('no')", "ValueError: no"),
    ],
)
def test_hooks_that_do_more_fail(statement, says, noisy):
    noisy(importing=statement)
    with pytest.raises(AssertionError, match=says):
        imports_nothing("noisy")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("torch.rand(1)", "draws random numbers"),
        ("import logging; logging.getLogger('of_it').disabled = True", "a logger"),
    ],
)
def test_builds_that_leave_a_trace_fail(statement, says, noisy):
    noisy(building=statement)
    with pytest.raises(AssertionError, match=says):
        builds_quietly("noisy", "of_it")
