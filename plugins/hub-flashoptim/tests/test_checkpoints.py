"""Checkpoints and copies of the FlashOptim names, and of flashoptim's classes."""

import copy
import pickle
from functools import partial

import pytest
import torch

import hub
from hub.backend import load_object
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import (
    continues,
    small_model,
    train,
)

from .wrapped import (
    ON_CPU,
    WRAPPED,
    build,
    by_hand,
    every_name,
    no_master_weights,
    resumed,
)

pytestmark = no_master_weights


@pytest.mark.parametrize("name", ["flash_sgd", "flash_sgdw", "flash_lion"])
def test_it_resumes_exactly_in_fp16(name):
    make = WRAPPED[name].build
    continues(make, make, model=partial(small_model, torch.float16))


@every_name
def test_a_checkpoint_of_the_upstream_class_is_loaded(name):
    continues(WRAPPED[name].by_hand, WRAPPED[name].build)


@pytest.mark.parametrize("argument", ["quantize", "master_weight_bits"])
def test_a_checkpoint_from_the_gpu_is_refused_on_cpu(argument):
    optimizer = build("flash_adamw", small_model())
    saved = optimizer.state_dict()
    saved["hub"]["arguments"][argument] = {"quantize": True, "master_weight_bits": 24}[argument]
    with pytest.raises(hub.CheckpointError, match=argument):
        optimizer.load_state_dict(saved)


def test_an_upstream_checkpoint_from_the_gpu_is_refused_on_cpu():
    model = small_model()
    reference = by_hand("flash_adamw", model)
    train(model, reference, [0])
    saved = reference.state_dict()
    saved["param_groups"][0]["quantize"] = True
    optimizer = build("flash_adamw", model)
    with pytest.raises(hub.CheckpointError, match="'quantize': True"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["copy", "pickle"],
)
@every_name
def test_copies_go_on_like_the_original(name, duplicate, steps):
    def alone(model):
        groups = [{"params": list(model.parameters())}]
        arguments = {"lr": 0.01, **dict(WRAPPED[name].arguments), **ON_CPU}
        return load_object(hub.describe(name).factory)(groups, **arguments)

    model, third = small_model(), small_model()
    optimizer = alone(model)
    train(model, optimizer, range(steps))
    other, copied = duplicate([model, optimizer])
    assert_same(train(model, optimizer, range(3, 6)), train(other, copied, range(3, 6)))
    third.load_state_dict(other.state_dict())
    reloaded = alone(third)
    reloaded.load_state_dict(through_a_file(copied.state_dict()))
    assert_same(train(third, reloaded, [6]), train(other, copied, [6]))


def test_the_upstream_class_cannot_be_copied():
    """When this fails, `_Fixes.__getstate__` may not be needed any more."""
    with pytest.raises(AttributeError, match="_master_bytewidth"):
        copy.deepcopy(by_hand("flash_adamw", small_model()))


def test_momentum_of_a_checkpoint_is_taken_over_where_there_was_none():
    straight, model = small_model(), small_model()
    train(straight, build("flash_sgd", straight), range(6))
    optimizer = build("flash_sgd", model)
    train(model, optimizer, range(3))
    with pytest.warns(hub.HubWarning, match="momentum 0.8 → 0.0"):
        fresh, other = resumed("flash_sgd", model, optimizer, momentum=0.0)
    assert_same(train(fresh, other, range(3, 6)), straight)


def test_the_upstream_class_fails_with_the_momentum_of_a_checkpoint():
    """When this fails, `_Fixes.__setstate__` need not replace the groups."""
    model = small_model()
    optimizer = by_hand("flash_sgd", model)
    train(model, optimizer, [0])
    other = by_hand("flash_sgd", model, momentum=0.0)
    other.load_state_dict(optimizer.state_dict())
    with pytest.raises(AttributeError):
        other.step()
