"""Checkpoints of the Schedule-Free names that were saved in evaluation mode."""

from copy import deepcopy

import pytest
import torch

import hub
from hub.testing.comparing import assert_same
from hub.testing.upstream import small_model, train

from .wrapped import build, by_hand, every_dtype, every_name

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


def saved_in_evaluation_mode(name, dtype=torch.float32):
    model = small_model(dtype)
    optimizer = build(name, model)
    train(model, optimizer, range(4))
    with hub.eval_mode(optimizer):
        return deepcopy((model.state_dict(), optimizer.state_dict()))


@every_dtype
@every_name
def test_a_checkpoint_of_evaluation_mode_resumes_exactly(name, dtype):
    whole = small_model(dtype)
    train(whole, build(name, whole), range(8))
    state, state_dict = saved_in_evaluation_mode(name, dtype)
    model = small_model(dtype)
    optimizer = build(name, model)
    model.load_state_dict(state)
    optimizer.load_state_dict(state_dict)
    train(model, optimizer, range(4, 8))
    assert_same(model, whole)


@every_name
def test_the_upstream_class_refuses_the_first_step_after_it(name):
    state, state_dict = saved_in_evaluation_mode(name)
    model = small_model()
    optimizer = by_hand(name, model)
    model.load_state_dict(state)
    optimizer.load_state_dict(state_dict)
    with pytest.raises(Exception, match=r"(?i)train mode"):
        train(model, optimizer, [4])
