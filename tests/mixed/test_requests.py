"""Which optimizers a build asks for: by rules, and for what an optimizer of matrices leaves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hub
from hub.testing.kit_model import make_model

BLOCK = r"blocks\.0\..*"


def algorithms(plan):
    """Return the optimizer of each parameter."""
    return {p.name: group.optimizer for group in plan.groups for p in group.parameters}


@pytest.mark.parametrize(
    "arguments",
    [
        {"optim_args": "rest.lr=3e-3, rest.betas=(0.8, 0.95), momentum=0.9"},
        {"optim_args": {"rest": {"lr": 3e-3, "betas": (0.8, 0.95)}, "momentum": 0.9}},
        {"optim_args": {"rest.lr": 3e-3, "rest.betas": [0.8, 0.95]}, "momentum": 0.9},
        {"rest": {"lr": 3e-3, "betas": (0.8, 0.95)}, "momentum": 0.9},
        {"rest": {"lr": 3e-3}, "optim_args": "rest.betas=(0.8, 0.95), momentum=0.9"},
    ],
    ids=["text", "mapping", "dotted", "keyword", "both"],
)
def test_a_rest_has_arguments(arguments):
    plan = hub.plan("muon", make_model(), **arguments)
    assert [member.optimizer for member in plan.members] == ["muon", "adamw_torch"]
    assert plan.values["momentum"] == 0.9
    rest = plan.arguments_of("adamw_torch")
    assert (rest["lr"], rest["betas"]) == (3e-3, (0.8, 0.95))


def test_a_rest_may_be_another_optimizer():
    plan = hub.plan("muon", make_model(), optim_args="rest.optimizer=sgd, rest.momentum=0.9")
    assert set(algorithms(plan).values()) == {"muon", "sgd"}


def test_a_layerwise_form_has_a_layerwise_rest():
    plan = hub.plan("muon_layerwise", make_model())
    assert set(algorithms(plan).values()) == {"muon_layerwise", "adamw_torch_layerwise"}


def test_every_parameter_has_its_algorithm_and_the_reason():
    plan = hub.plan("muon", make_model(), param_rules={"detour": {"optimizer": "sgd"}})
    why = {p.name: (g.optimizer, p.why) for g in plan.groups for p in g.parameters}
    assert why["blocks.0.attn.weight"] == ("muon", "matrix")
    assert why["embed.weight"] == ("adamw_torch", "embedding")
    assert why["conv.weight"] == ("adamw_torch", "not a target")
    assert why["detour.weight"] == ("sgd", "weight")
    assert "sgd" in str(plan)
    assert hub.Plan.from_dict(plan.to_dict()) == plan


def test_the_first_rule_wins_among_both_kinds():
    rules = [
        (r"blocks\.0\.attn\..*", {"lr": 0.5}),
        ("blocks", {"optimizer": "sgd", "lr": 0.25}),
        ("down", {"lr_scale": 2.0}),
        ("conv", {"lr_scale": 2.0}),
    ]
    with pytest.raises(hub.TargetModulesError, match="'down' is shadowed"):
        hub.plan("adamw_torch", make_model(), param_rules=rules)
    plan = hub.plan("adamw_torch", make_model(), param_rules=[r for r in rules if r[0] != "down"])
    found = algorithms(plan)
    assert found["blocks.0.attn.weight"] == found["conv.weight"] == "adamw_torch"
    assert found["blocks.0.up.weight"] == found["blocks.1.attn.weight"] == "sgd"


def test_a_rule_may_name_an_optimizer_of_matrices():
    plan = hub.plan("sgd", make_model(), param_rules={"blocks": {"optimizer": "muon"}})
    found = algorithms(plan)
    assert found["blocks.0.up.weight"] == "muon"
    assert found["blocks.0.up.bias"] == "adamw_torch"
    assert found["conv.weight"] == "sgd"


def test_a_rule_may_name_a_low_rank_optimizer():
    rule = {"optimizer": "galore_adamw", "target_modules": "all-linear", "rank": 4}
    plan = hub.plan("sgd", make_model(), param_rules={BLOCK: rule})
    targets = {p.name for g in plan.groups if g.low_rank for p in g.parameters}
    assert targets == {f"blocks.0.{name}.weight" for name in ("attn", "up", "down")}
    assert set(plan.target_modules) == {f"blocks.0.{name}" for name in ("attn", "up", "down")}


def test_a_trainer_s_defaults_reach_all_that_have_them():
    plan = hub.plan("muon", make_model(), defaults={"lr": 5e-5, "weight_decay": 0.3})
    for name in ("muon", "adamw_torch"):
        found = plan.arguments_of(name)
        assert (found["lr"], found["weight_decay"]) == (5e-5, 0.3)


WRONG = {
    "unknown optimizer": ({BLOCK: {"optimizer": "nothing"}}, {}, "no optimizer 'nothing'"),
    "unknown argument": ({BLOCK: {"optimizer": "sgd", "rank": 3}}, {}, "sgd has no argument"),
    "not its argument": ({"embed": {"momentum": 0.5}}, {}, "adamw_torch cannot set 'momentum'"),
    "unknown key of the rest": ({}, {"rest": {"momentum": 0.9}}, "adamw_torch has no argument"),
    "not a mapping": ({}, {"rest": 3}, "rest=3 is not a mapping"),
    "a rest with a rest": ({}, {"rest": {"optimizer": "muon"}}, "leaves parameters to a rest"),
    "given twice": ({}, {"rest": {"lr": 1.0}, "optim_args": "rest.lr=2"}, "given twice"),
    "nothing left": ({".*": {"optimizer": "sgd"}}, {}, "muon would train nothing"),
    "another clipping": (
        {"blocks": {"optimizer": "sgd_layerwise", "clipping": "per_parameter"}},
        {"rest": {"optimizer": "adamw_torch_layerwise"}, "max_grad_norm": 1.0},
        "needs inside the backward pass, and muon after it",
    ),
    "no matrices": ({"norm": {"optimizer": "muon"}}, {}, "muon would train nothing"),
    "matches nothing": ({"nowhere": {"optimizer": "sgd"}}, {}, "matches no parameter"),
}


@pytest.mark.parametrize(("rules", "arguments", "says"), WRONG.values(), ids=WRONG)
def test_bad_requests_are_refused(rules, arguments, says):
    model = make_model()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    for call in (hub.plan, hub.build):
        with pytest.raises(hub.HubError, match=says):
            call("muon", model, param_rules=rules, **arguments)
    assert all(p.equal(before[name]) for name, p in model.state_dict().items())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_rest_without_parameters_takes_no_arguments():
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    )
    assert not hub.plan("muon", model).members
    with pytest.raises(hub.OptimArgsError, match="no parameter is left for the rest"):
        hub.plan("muon", model, optim_args="rest.lr=1e-3")


def test_members_clip_in_one_way():
    rules = {"blocks": {"optimizer": "sgd_layerwise", "clipping": "per_parameter"}}
    given = {"clipping": "exact", "max_grad_norm": 1.0, "param_rules": rules}
    with pytest.raises(hub.OptimArgsError, match="clipping has 2 values"):
        hub.plan("adamw_torch_layerwise", make_model(), **given)


def test_the_previous_norm_is_not_known_beside_lomo():
    rules = {"blocks": {"optimizer": "lomo"}}
    given = {"clipping": "previous_norm", "max_grad_norm": 1.0, "param_rules": rules}
    with pytest.raises(hub.OptimArgsError, match="lomo ends its steps by itself"):
        hub.plan("adamw_torch_layerwise", make_model(), **given)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(rest=VALUES, rule=VALUES)
def test_any_input_builds_or_is_a_hub_error(rest, rule):
    try:
        hub.plan("muon", make_model(), rest=rest, param_rules={"blocks": {"optimizer": rule}})
    except hub.HubError:
        return
