"""What the plan says about `rounding` and `offload`."""

import pytest
import torch
from helpers.models import Model

import hub


def texts(name, model, **arguments):
    return "\n".join(str(finding) for finding in hub.plan(name, model, **arguments).findings)


def test_what_stalls_is_told_of_rounding():
    assert "rounding='split' or rounding='stochastic'" in texts(
        "adamw_torch", Model().bfloat16(), lr=1e-5
    )
    assert "spaced" not in texts("adamw_torch", Model().bfloat16(), lr=1e-5, rounding="split")


def test_the_plan_says_what_rounding_costs():
    model = Model().bfloat16()
    elements = sum(p.numel() for p in model.parameters() if p.requires_grad)
    said = texts("adamw_torch", model, rounding="split")
    assert f"{elements:,} weights" in said
    assert "2 more bytes a weight" in said
    assert "nothing for the weights" in texts("adamw_torch", model, rounding="stochastic")


def test_rounding_fp32_weights_is_a_warning():
    plan = hub.plan("adamw_torch", Model(), rounding="split")
    assert [f.level for f in plan.findings if "changes nothing" in str(f)] == [hub.Level.WARN]


def test_a_precision_that_the_optimizer_cannot_step_in_is_no_obstacle():
    model = Model().half()
    assert hub.plan("adamw_torch", model).refused
    assert not hub.plan("adamw_torch", model, rounding="split").refused
    optimizer = hub.build("adamw_torch", model, rounding="split")
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-4)
    optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_plugin_hears_the_precision_that_is_stepped():
    model = Model().bfloat16()
    kept = {a.name: a.value for a in hub.plan("stable_adamw", model, rounding="split").arguments}
    assert kept["kahan_sum"] is None
    assert (
        hub.plan("stable_adamw", model).precision
        == hub.plan("stable_adamw", model, rounding="split").precision
    )


@pytest.mark.parametrize("text", ["rounding=nearest", "rounding=1", "offload=disk"])
def test_other_values_are_refused(text):
    with pytest.raises(hub.OptimArgsError, match=text.split("=")[0]):
        hub.plan("adamw_torch", Model(), optim_args=text)
