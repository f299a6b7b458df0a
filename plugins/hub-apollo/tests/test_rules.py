"""Projections that rules set for some of the targets."""

import pytest

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import train

from .wrapped import build, make_model, resumed


def test_rules_set_ranks():
    model = make_model()
    rules = {r"2\.weight": {"rank": 2, "scale": 8.0, "update_proj_gap": 1}}
    optimizer = build(model, rank=24, param_rules=rules)
    train(model, optimizer, [0])
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (40, 24)
    assert optimizer.state[model[2].weight]["exp_avg"].shape == (2, 40)
    fresh, continued = resumed(model, optimizer, rank=24, param_rules=rules)
    assert_same(train(fresh, continued, range(1, 4)), train(model, optimizer, range(1, 4)))


def test_what_a_rule_sets_for_projections_does_not_reach_other_parameters():
    model = make_model()
    optimizer = build(model, param_rules={"2": {"rank": 2}})
    plain = [g for g in optimizer.param_groups if "low_rank" not in g["name"]]
    assert not any("rank" in group for group in plain)
    train(model, optimizer, range(2))


def test_rules_that_set_projections_of_nothing_are_refused():
    with pytest.raises(hub.OptimArgsError, match="rank cannot be set") as refused:
        build(make_model(), param_rules={r"3\.weight": {"rank": 2}})
    assert "3" in refused.value.where


def test_rules_are_held_to_the_shapes():
    findings = build(make_model(), param_rules={r"2\.weight": {"rank": 30}}).hub_plan.findings
    says = "rank=30 is not below the smaller side of 1 of 2 target weights"
    assert any(says in finding.what for finding in findings)
    with pytest.raises(hub.OptimArgsError, match="larger side"):
        build(make_model(), param_rules={r"2\.weight": {"proj_type": "right"}})
