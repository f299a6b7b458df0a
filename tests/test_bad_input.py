"""P12: every bad input says what, where and the fix, and leaves everything as it was."""

import functools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.unchanged import unchanged
from torch import nn

import hub


class Case(NamedTuple):
    id: str
    error: type[hub.HubError]
    says: tuple[str, ...]
    arguments: dict
    name: str = "adamw_torch"


LOW_RANK = "galore_adamw"
ENDLESS = []
ENDLESS.append(ENDLESS)
LOOP = {}
LOOP["lr"] = LOOP
DEEP = functools.reduce(lambda inner, _: [inner], range(2000), 1e-3)
CASES = [
    Case(
        "unknown name",
        hub.UnknownOptimizerError,
        ("no optimizer 'zzz'", "list_optimizers"),
        {},
        "zzz",
    ),
    Case(
        "near-miss name", hub.UnknownOptimizerError, ("did you mean adamw_torch",), {}, "adamw_toch"
    ),
    Case(
        "unknown key",
        hub.OptimArgsError,
        ("no argument 'beta'", "did you mean 'betas'"),
        {"optim_args": "beta=(0.9, 0.95)"},
    ),
    Case(
        "unknown keyword",
        hub.OptimArgsError,
        ("no argument 'learning_rate'", "it takes", "lr"),
        {"learning_rate": 1.0},
    ),
    Case(
        "wrong type",
        hub.OptimArgsError,
        ("lr='fast'", "valid number", "from keyword", "float >= 0"),
        {"lr": "fast"},
    ),
    Case(
        "wrong type in text",
        hub.OptimArgsError,
        ("amsgrad=3", "from optim_args", "^"),
        {"optim_args": "amsgrad=3"},
    ),
    Case("boolean as number", hub.OptimArgsError, ("lr=True", "valid number"), {"lr": True}),
    Case("number as boolean", hub.OptimArgsError, ("amsgrad=1", "valid boolean"), {"amsgrad": 1}),
    Case("too few betas", hub.OptimArgsError, ("betas",), {"betas": (0.9,)}),
    Case("out of range", hub.OptimArgsError, ("lr=-1", "greater than or equal to 0"), {"lr": -1}),
    Case("beta out of range", hub.OptimArgsError, ("betas", "less than 1"), {"betas": (0.9, 1.0)}),
    Case("nan", hub.OptimArgsError, ("finite",), {"lr": float("nan")}),
    Case(
        "contradiction",
        hub.OptimArgsError,
        ("fused=True cannot be combined with foreach=True",),
        {"fused": True, "foreach": True},
    ),
    Case(
        "unbalanced bracket",
        hub.OptimArgsError,
        ("'(' is never closed", "character 7"),
        {"optim_args": "betas=(0.9, 0.95"},
    ),
    Case(
        "wrong bracket",
        hub.OptimArgsError,
        ("']' closes nothing",),
        {"optim_args": "betas=(0.9, 0.95]"},
    ),
    Case("unclosed quote", hub.OptimArgsError, ("is never closed",), {"optim_args": "lr='1"}),
    Case(
        "duplicate key",
        hub.OptimArgsError,
        ("'lr' is given twice", "character 9"),
        {"optim_args": "lr=1e-3,lr=1e-3"},
    ),
    Case(
        "two values",
        hub.OptimArgsError,
        ("given twice with two values", "0.1", "0.2"),
        {"optim_args": "lr=0.1", "lr": 0.2},
    ),
    Case("no value", hub.OptimArgsError, ("'lr' has no value",), {"optim_args": "lr="}),
    Case("no key", hub.OptimArgsError, ("is not a key",), {"optim_args": "=3"}),
    Case(
        "expression",
        hub.OptimArgsError,
        ("neither a literal nor a word",),
        {"optim_args": "lr=__import__('os').getpid()"},
    ),
    Case(
        "optim_args of a wrong kind",
        hub.OptimArgsError,
        ("optim_args is a list",),
        {"optim_args": [1]},
    ),
    Case(
        "targets missing",
        hub.TargetModulesError,
        ("requires target_modules", "all-linear"),
        {},
        LOW_RANK,
    ),
    Case(
        "targets match nothing",
        hub.TargetModulesError,
        ("matches no module", "q_proj"),
        {"target_modules": ["qq_proj"]},
        LOW_RANK,
    ),
    Case(
        "one of two targets matches nothing",
        hub.TargetModulesError,
        ("'nothing' matches no module",),
        {"target_modules": ["mlp", "nothing"]},
        LOW_RANK,
    ),
    Case(
        "targets match no linear layer",
        hub.TargetModulesError,
        ("matches no linear layer", "LayerNorm"),
        {"target_modules": "q_norm"},
        LOW_RANK,
    ),
    Case(
        "targets are frozen",
        hub.TargetModulesError,
        ("1 frozen",),
        {"target_modules": "frozen"},
        LOW_RANK,
    ),
    Case(
        "target is tied",
        hub.TargetModulesError,
        ("shared with an embedding",),
        {"target_modules": "head"},
        LOW_RANK,
    ),
    Case(
        "target regex does not compile",
        hub.TargetModulesError,
        ("does not compile",),
        {"target_modules": "(mlp"},
        LOW_RANK,
    ),
    Case(
        "empty targets",
        hub.TargetModulesError,
        ("names no modules",),
        {"target_modules": []},
        LOW_RANK,
    ),
    Case(
        "targets of a wrong kind",
        hub.TargetModulesError,
        ("names no modules",),
        {"target_modules": 3},
        LOW_RANK,
    ),
    Case(
        "a target of a wrong kind",
        hub.TargetModulesError,
        ("3 is not a pattern",),
        {"target_modules": [3]},
        LOW_RANK,
    ),
    Case(
        "targets without use",
        hub.TargetModulesError,
        ("does not accept target_modules",),
        {"target_modules": "mlp"},
    ),
    Case(
        "rule matches nothing",
        hub.TargetModulesError,
        ("matches no parameter", "embed"),
        {"param_rules": {"embedd": {"lr": 1.0}}},
    ),
    Case(
        "rule is shadowed",
        hub.TargetModulesError,
        ("shadowed by earlier rules",),
        {"param_rules": [("mlp", {"lr": 1.0}), ("mlp.0", {"lr": 2.0})]},
    ),
    Case(
        "rule regex does not compile",
        hub.TargetModulesError,
        ("does not compile",),
        {"param_rules": {"(": {"lr": 1.0}}},
    ),
    Case("rule sets nothing", hub.OptimArgsError, ("sets nothing",), {"param_rules": {"mlp": {}}}),
    Case(
        "rule sets what no group can have",
        hub.OptimArgsError,
        ("cannot set 'foreach'", "lr_scale"),
        {"param_rules": {"mlp": {"foreach": True}}},
    ),
    Case(
        "rule sets a wrong value",
        hub.OptimArgsError,
        ("lr=-1",),
        {"param_rules": {"mlp": {"lr": -1}}},
    ),
    Case(
        "rule scales and sets",
        hub.OptimArgsError,
        ("lr_scale=0.1 cannot be applied",),
        {"param_rules": {"mlp": {"lr": 1.0, "lr_scale": 0.1}}},
    ),
    Case(
        "rules of a wrong kind",
        hub.OptimArgsError,
        ("is not a parameter rule",),
        {"param_rules": ["mlp"]},
    ),
    Case(
        "unknown precision",
        hub.PrecisionError,
        ("precision='half' is unknown", "bf16-mixed"),
        {"precision": "half"},
    ),
    Case(
        "no accumulation",
        hub.OptimArgsError,
        ("gradient_accumulation_steps=0",),
        {"gradient_accumulation_steps": 0},
    ),
    Case("negative norm", hub.OptimArgsError, ("max_grad_norm=-1",), {"max_grad_norm": -1}),
    Case("norm too large", hub.OptimArgsError, ("is not a norm",), {"max_grad_norm": 10**400}),
    Case(
        "too many micro-batches",
        hub.OptimArgsError,
        ("is not a number of micro-batches",),
        {"gradient_accumulation_steps": 10**400},
    ),
    Case(
        "name of a wrong kind", hub.UnknownOptimizerError, ("['sgd'] is not a name",), {}, ["sgd"]
    ),
    Case(
        "rules are a number", hub.OptimArgsError, ("5 is not a parameter rule",), {"param_rules": 5}
    ),
    Case(
        "scale too large",
        hub.OptimArgsError,
        ("lr_scale=1000", "cannot be applied"),
        {"param_rules": {"mlp": {"lr_scale": 10**400}}},
    ),
    Case(
        "scale is a boolean",
        hub.OptimArgsError,
        ("lr_scale=True cannot be applied",),
        {"param_rules": {"mlp": {"lr_scale": True}}},
    ),
    Case("defaults are a text", hub.OptimArgsError, ("defaults is a str",), {"defaults": "x"}),
    Case(
        "precision is a list",
        hub.PrecisionError,
        ("precision=['fp32'] is unknown",),
        {"precision": ["fp32"]},
    ),
    Case(
        "two arrays",
        hub.OptimArgsError,
        ("given twice with two values", "array([0.9"),
        {"optim_args": {"betas": np.array([0.9, 0.99])}, "betas": np.array([0.9, 0.99])},
    ),
    Case(
        "two tensors",
        hub.OptimArgsError,
        ("given twice with two values", "tensor([0.9"),
        {"optim_args": {"betas": torch.tensor([0.9, 0.99])}, "betas": torch.tensor([0.9, 0.9])},
    ),
    *(
        Case(f"{kind} {where}", hub.OptimArgsError, ("levels deep",), {where: value})
        for kind, value in (("endless", ENDLESS), ("endless mapping", LOOP), ("deep", DEEP))
        for where in ("lr", "betas")
    ),
    Case("endless optim_args", hub.OptimArgsError, ("levels deep",), {"optim_args": LOOP}),
    Case("endless rules", hub.OptimArgsError, ("levels deep",), {"param_rules": ENDLESS}),
    Case(
        "endless targets",
        hub.OptimArgsError,
        ("levels deep",),
        {"target_modules": ENDLESS},
        LOW_RANK,
    ),
    Case("endless defaults", hub.OptimArgsError, ("levels deep",), {"defaults": LOOP}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("call", [hub.build, hub.plan], ids=["build", "plan"])
def test_is_refused_with_a_reason(case, call, model, capfd):
    with unchanged(model), pytest.raises(case.error) as raised:
        call(case.name, model, **case.arguments)
    for text in case.says:
        assert text in str(raised.value)
    assert raised.value.what
    assert raised.value.where
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(), "has no parameters"),
        (nn.Linear(2, 2).requires_grad_(False), "all parameters of the model are frozen"),
        ([nn.Parameter()], "model is a list, not a torch.nn.Module"),
        (nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)), "1.weight has no shape yet"),
    ],
    ids=["empty", "frozen", "not a model", "lazy"],
)
def test_nothing_to_train(model, says):
    with pytest.raises(hub.HubError, match=says):
        hub.build("adamw_torch", model)


def test_a_model_on_the_meta_device_can_be_planned_but_not_built():
    model = nn.Linear(4, 4, device="meta")
    plan = hub.plan("adamw_torch", model)
    assert plan.precision.devices == ("meta",)
    assert plan.refused
    assert not plan.materialized().refused
    assert hub.estimate("adamw_torch", model).parameters == 4 * (16 + 4)
    with pytest.raises(hub.UnsupportedError, match="meta device"):
        hub.build("adamw_torch", model)


def test_a_model_that_another_optimizer_steps_is_refused_in_the_plan():
    model = nn.Linear(4, 4)
    optimizer = hub.build("sgd_layerwise", model)
    plan = hub.plan("adamw_torch", model)
    assert isinstance(plan.refusal, hub.UnsupportedError)
    with pytest.raises(hub.UnsupportedError, match="sgd_layerwise still updates weight"):
        hub.build("adamw_torch", model)
    assert hub.estimate("adamw_torch", model).parameters == 4 * (16 + 4)
    hub.detach(optimizer)
    assert not hub.plan("adamw_torch", model).refused


def test_what_the_optimizer_cannot_train_in_is_in_the_plan_and_refused_by_build():
    model = nn.Linear(4, 4).half()
    assert hub.plan("adamw_torch", model).refused
    for call in (hub.build, hub.estimate):
        with unchanged(model), pytest.raises(hub.PrecisionError, match="train correctly in fp16"):
            call("adamw_torch", model)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: hub.build_scheduler("linear", None, num_training_steps=9),
            "None is not an optimizer",
        ),
        (lambda: hub.build_scheduler(["linear"], None), "is not a name"),
        (lambda: hub.create_scheduler(3, {}, 9), "3 is not an optimizer"),
        (lambda: hub.grad_norm(None), "None is not an optimizer"),
        (lambda: hub.describe_groups([]), r"\[\] is not an optimizer"),
        (lambda: hub.describe_groups(nn.Linear(2, 2)), "is not an optimizer"),
        (lambda: hub.describe(None), "None is not a name"),
        (lambda: hub.list_optimizers(3), "3 is not a pattern"),
        (lambda: hub.list_schedulers(None), "None is not a pattern"),
        (lambda: hub.Plan.from_dict({"optimizer": 3}), "the data do not describe a plan"),
        (lambda: hub.Plan.from_dict(None), "the data do not describe a plan"),
        (lambda: hub.TrainingConfig(learning_rate=ENDLESS), "levels deep"),
        (
            lambda: hub.TrainingConfig(max_steps=10).resolved_warmup_steps(10**400),
            "is not a number of steps",
        ),
        (lambda: hub.create_optimizer(nn.Linear(2, 2), {"optim_args": LOOP}), "levels deep"),
        (lambda: hub.create_optimizer(nn.Linear(2, 2), None), "is not a training configuration"),
        (lambda: hub.estimate(3, nn.Linear(2, 2)), "3 is not a name"),
        (lambda: hub.estimate("sgd", None), "model is a NoneType"),
    ],
)
def test_every_function_says_what_it_cannot_take(call, says):
    with pytest.raises(hub.HubError, match=says) as raised:
        call()
    assert raised.value.where


def test_a_yaml_file_that_holds_itself_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("optim_args: &a\n  betas: *a\n")
    with pytest.raises(hub.OptimArgsError, match="levels deep"):
        hub.TrainingConfig.load(tmp_path / "config.yaml")
