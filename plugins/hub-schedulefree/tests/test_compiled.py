"""`schedule_free_adamw` with a compiled update."""

from functools import partial

import pytest
import schedulefree
import torch
from hub_schedulefree import compiled

import hub
from hub.testing.comparing import assert_close
from hub.testing.upstream import (
    compilations,
    continues,
    gradients,
    groups_of,
    small_model,
    train,
)

OWN = {
    "lr": 0.01,
    "betas": (0.8, 0.95),
    "eps": 1e-7,
    "weight_decay": 0.1,
    "warmup_steps": 3,
    "r": 0.5,
}
build = partial(hub.build, "schedule_free_adamw", **OWN, compile=True)

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@pytest.fixture
def counter():
    with compilations(compiled._step) as counts:
        yield counts


def by_hand(model, **arguments):
    optimizer = schedulefree.AdamWScheduleFree(groups_of(model), **{**OWN, **arguments})
    optimizer.train()
    return optimizer


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
    ids=str,
)
def test_it_is_the_update_of_schedulefree_but_for_rounding(dtype, tolerance):
    ours, theirs = small_model(dtype), small_model(dtype)
    optimizer, upstream = build(ours), by_hand(theirs)
    train(ours, optimizer, range(6))
    train(theirs, upstream, range(6))
    assert_close(ours, theirs, tolerance)
    for key in ("k", "lr_max", "scheduled_lr", "weight_sum"):
        assert optimizer.param_groups[0][key] == upstream.param_groups[0][key]
    optimizer.eval()
    upstream.eval()
    assert_close(ours, theirs, tolerance)
    assert isinstance(optimizer, schedulefree.AdamWScheduleFree)


def test_neither_steps_nor_shapes_nor_rates_compile_again(counter):
    model = small_model(widths=(16, 32, 24, 8))
    optimizer = build(model, param_rules={"0": {"eps": 1e-3, "lr_scale": 0.5}})
    for step in range(6):
        train(model, optimizer, [step])
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
    assert counter.frame_count == 1


@pytest.mark.usefixtures("counter")
def test_a_rate_of_zero_moves_nothing():
    model, untouched = small_model(), small_model()
    train(model, build(model, lr=0.0, weight_decay=0.0), range(3))
    assert_close(model, untouched, 0.0)


@pytest.mark.usefixtures("counter")
def test_gradients_stay_as_they_are():
    model = small_model()
    optimizer = build(model)
    gradients(model, 0)
    before = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    assert all(map(torch.equal, before, [p.grad for p in model.parameters()]))


@pytest.mark.usefixtures("counter")
def test_it_resumes_exactly_and_schedulefree_continues_it():
    continues(build, build)
    continues(by_hand, build, by_hand, steps=0)


@pytest.mark.usefixtures("counter")
def test_it_takes_a_closure():
    model = small_model()
    optimizer = build(model)
    gradients(model, 0)
    assert optimizer.step(lambda: 2.5) == 2.5


def test_the_bare_class_refuses_to_step_in_evaluation_mode_as_schedulefrees_does():
    optimizer = compiled.CompiledAdamW(groups_of(small_model()), **OWN)
    with pytest.raises(Exception, match="not in train mode"):
        optimizer.step()


def test_the_kernel_of_the_compiler_does_the_same():
    ours, theirs = small_model(), small_model()
    train(ours, build(ours), range(3))
    train(theirs, by_hand(theirs), range(3))
    assert_close(ours, theirs, 1e-5)


def test_the_plan_says_what_compiles():
    plan = hub.plan("schedule_free_adamw", small_model(), compile=True)
    assert any("compiles 1 kernel" in finding.what for finding in plan.findings)
