"""Checkpoints of `stable_adamw`, and of optimi's class."""

from functools import partial

import pytest
import torch
from torch import nn

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import continues, small_model, train

from .wrapped import OWN, both_dtypes, build, by_hand, every_dtype, implementations, resumed

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@every_dtype
@implementations
def test_it_resumes_exactly(arguments, dtype):
    continues(build, build, model=partial(small_model, dtype), **arguments)


@both_dtypes
def test_a_checkpoint_of_the_upstream_class_is_continued(dtype):
    other = partial(by_hand, betas=(0.7, 0.9))
    _, optimizer = continues(other, build, model=partial(small_model, dtype))
    assert optimizer.param_groups[0]["betas"] == (0.7, 0.9)


def test_eps_survives_a_checkpoint_in_fp16():
    """Ultralytics (8.4.190, engine/trainer.py) saves so whatever state it does not know."""
    model, other = small_model(), small_model()
    optimizer, again = build(model), build(other)
    train(model, optimizer, [0])
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        state["eps_sq"] = state["eps_sq"].half()
        assert state["eps_sq"] == 0
    again.load_state_dict(saved)
    other.load_state_dict(model.state_dict())
    train(model, optimizer, [1])
    assert_same(train(other, again, [1]), model)
    found = {state["eps_sq"].item() for state in again.state.values()}
    assert found == {torch.tensor(OWN["eps"] ** 2).item()}


def test_a_late_group_has_the_betas_and_counts_for_itself():
    model, extra = small_model(), nn.Linear(16, 8)
    optimizer = build(model)
    train(model, optimizer, range(3))
    late = dict(extra.named_parameters(prefix="extra"))
    optimizer.add_param_group({"params": list(late.values()), "param_names": list(late)})
    for step in range(3, 5):
        extra(torch.ones(1, 16)).sum().backward()
        train(model, optimizer, [step])
    assert optimizer.param_groups[-1]["betas"] == (0.8, 0.95)
    assert [group["step"] for group in optimizer.param_groups] == [5, 5, 2]


def test_state_dicts_say_what_was_asked_for():
    model = small_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    for live, saved in zip(
        optimizer.param_groups, optimizer.state_dict()["param_groups"], strict=True
    ):
        assert live["triton"] is False
        assert saved["triton"] is None


def test_resuming_with_another_implementation_says_which_one_is_used():
    model = small_model()
    optimizer = build(model, foreach=True)
    train(model, optimizer, [0])
    with pytest.warns(hub.HubWarning, match=r"foreach True → False \(new value is used\)"):
        _, again = resumed(model, optimizer, small_model(), foreach=False)
    assert again.param_groups[0]["foreach"] is False


def test_kahan_sum_starts_when_fp32_training_is_resumed_in_bf16():
    model = small_model()
    optimizer = build(model)
    train(model, optimizer, range(3))
    fresh, again = resumed(model, optimizer, small_model(torch.bfloat16))
    train(fresh, again, range(3, 5))
    assert all(group["kahan_sum"] for group in again.param_groups)
    assert again.state[fresh[0].weight]["kahan_comp"].abs().max() > 0


def test_kahan_sum_ends_when_bf16_training_is_resumed_in_fp32():
    model = small_model(torch.bfloat16)
    optimizer = build(model)
    train(model, optimizer, range(3))
    fresh, again = resumed(model, optimizer, small_model(torch.float32))
    train(fresh, again, range(3, 5))
    assert again.state[fresh[0].weight]["kahan_comp"] is None


def test_the_upstream_class_cannot_start_kahan_sum_when_resuming():
    """When this fails, `factory.StableAdamW._fit_state` need not make the tensors any more."""
    model, fresh = small_model(), small_model(torch.bfloat16)
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    again = by_hand(fresh)
    again.load_state_dict(optimizer.state_dict())
    train(fresh, again, [1])
    assert again.state[fresh[0].weight]["kahan_comp"] is None
