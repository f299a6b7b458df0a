"""Checkpoints of the torchao names, and of torchao's classes."""

import io
import subprocess
import sys
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torchao.optim.subclass_4bit import OptimState4bit

import hub
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import (
    by_file,
    continues,
    train,
)

from .wrapped import (
    WRAPPED,
    bf16_weights,
    both_dtypes,
    build,
    by_hand,
    every_name,
    make_model,
    resumed,
    trained,
)

pytestmark = bf16_weights


@both_dtypes
@every_name
def test_it_resumes_exactly_after_several_loads(name, dtype):
    continues(*[WRAPPED[name].build] * 3, model=partial(make_model, dtype))


def flat(saved, fresh):
    """Load a flattened state dict of `torch.distributed.checkpoint`."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    fresh[0].load_state_dict(saved[0].state_dict())
    state = deepcopy(get_optimizer_state_dict(*saved, options=options))
    set_optimizer_state_dict(*fresh, state, options=options)


@every_name
def test_a_flat_distributed_checkpoint_resumes_exactly(name):
    builds = [WRAPPED[name].build] * 2
    continues(*builds, model=make_model, hand_over=flat)


def by_copy(saved, fresh):
    """Load a deep copy of state dicts."""
    for part, one in zip(fresh, saved, strict=True):
        part.load_state_dict(deepcopy(one.state_dict()))


@every_name
def test_state_dicts_can_be_copied(name):
    continues(*[WRAPPED[name].build] * 2, model=make_model, hand_over=by_copy)
    _, reference = trained(name, builder=by_hand)
    with pytest.raises(NotImplementedError):
        deepcopy(reference.state_dict())


def test_the_file_loads_where_torchao_was_never_imported(tmp_path):
    for builder, file in [(build, "ours"), (by_hand, "theirs")]:
        (tmp_path / file).write_bytes(
            saved_bytes(trained("adamw_torch_8bit", 1, builder=builder)[1].state_dict())
        )
    code = (
        "import pickle, sys, torch\n"
        "torch.load('ours', weights_only=True)\n"
        "try:\n"
        "    torch.load('theirs', weights_only=True)\n"
        "except pickle.UnpicklingError:\n"
        "    assert 'torchao' not in sys.modules\n"
        "else:\n"
        "    raise AssertionError('upstream is fixed')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def saved_bytes(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def alive(saved, fresh):
    """Load what lives on."""
    for part, one in zip(fresh, saved, strict=True):
        part.load_state_dict(one.state_dict())


@pytest.mark.parametrize("hand_over", [alive, by_file])
@both_dtypes
@every_name
def test_a_checkpoint_of_upstreams_is_loaded(name, dtype, hand_over):
    builds = WRAPPED[name].by_hand, WRAPPED[name].build
    _, optimizer = continues(*builds, model=partial(make_model, dtype), hand_over=hand_over)
    through_a_file(optimizer.state_dict())


@every_name
def test_what_is_loaded_from_a_live_optimizer_is_not_shared(name):
    for source in (build, by_hand):
        straight, _ = trained(name, 8, source)
        model, optimizer = trained(name, 4, source)
        other, follower = resumed(name, [model.state_dict(), optimizer.state_dict()])
        train(other, follower, range(20, 24))
        for group in follower.param_groups:
            group["lr"].fill_(1.0)
        assert_same(train(model, optimizer, range(4, 8)), straight)


def test_state_of_fp32_weights_continues_in_bf16():
    saved = [m.state_dict() for m in trained("adamw_torch_8bit")]
    model, optimizer = resumed("adamw_torch_8bit", saved, make_model(torch.bfloat16))
    state = optimizer.state[model[0].weight]["exp_avg_sq"]
    assert torch.equal(state.scale, next(iter(saved[1]["state"].values()))["exp_avg_sq"]["scale"])
    train(model, optimizer, range(4, 6))
    assert optimizer.state[model[0].bias]["exp_avg"].dtype == torch.bfloat16


def test_state_of_other_bits_is_refused_where_upstream_trains_on():
    model, reference = trained("adamw_torch_4bit", builder=by_hand)
    other = by_hand("adamw_torch_8bit", model)
    other.load_state_dict(reference.state_dict())
    train(model, other, [0])
    assert type(other.state[model[0].weight]["exp_avg"]) is OptimState4bit
    optimizer = build("adamw_torch_8bit", model)
    with pytest.raises(hub.CheckpointError, match="not 8-bit state"):
        optimizer.load_state_dict(reference.state_dict())
    assert not optimizer.state
    with pytest.raises(hub.CheckpointError, match="not adamw_torch_8bit"):
        optimizer.load_state_dict(build("adamw_torch_4bit", model).state_dict())


@every_name
def test_another_block_size_is_refused(name):
    model, optimizer = trained(name)
    other = build(name, model, block_size=64)
    with pytest.raises(hub.CheckpointError, match="block_size"):
        other.load_state_dict(optimizer.state_dict())
