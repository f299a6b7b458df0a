"""Checkpoints of the GaLore names, and of galore_torch's classes."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import by_file, by_pickle, continues, gradients, train

from .wrapped import (
    WRAPPED,
    both_dtypes,
    build,
    every_name,
    every_projection,
    make_model,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*(bf16|fp16):hub.HubWarning")


@both_dtypes
@every_projection
@every_name
def test_it_resumes_exactly(name, proj_type, dtype):
    make = WRAPPED[name].build
    continues(make, make, model=partial(make_model, dtype), proj_type=proj_type)


@both_dtypes
@every_name
def test_it_resumes_exactly_with_8bit_state_and_after_several_loads(name, dtype):
    make = WRAPPED[name].build
    continues(make, make, make, model=partial(make_model, dtype), steps=3, rank=40)


@every_name
def test_a_checkpoint_that_upstream_pickled_is_loaded(name):
    wrapped = WRAPPED[name]
    pickled = continues(wrapped.by_hand, wrapped.build, model=make_model, hand_over=by_pickle)
    through_a_file(pickled[1].state_dict())


@every_name
def test_what_is_loaded_from_a_live_optimizer_of_upstreams_is_not_shared(name):
    model, other = make_model(), make_model()
    reference, optimizer = WRAPPED[name].by_hand(model), build(name, other)
    train(model, reference, [0])
    optimizer.load_state_dict(reference.state_dict())
    live, loaded = reference.state[model[0].weight], optimizer.state[other[0].weight]
    places = live["projector"].ortho_matrix.data_ptr(), loaded["projector"].data_ptr()
    assert places[0] != places[1]


@every_name
@pytest.mark.parametrize("proj_type", ["std", "full"])
def test_projectors_are_saved_by_rows_and_come_back_with_their_strides(name, proj_type):
    """`dist.broadcast` sends memory as it lies, and products round by the order of strides."""
    straight, model, fresh = make_model(), make_model(), make_model()
    train(straight, build(name, straight, proj_type=proj_type), range(8))
    optimizer = build(name, model, proj_type=proj_type)
    train(model, optimizer, range(4))
    saved = through_a_file(optimizer.state_dict())
    tensors = [v for s in saved["state"].values() for v in _flat(s.get("projector", ()))]
    assert len(tensors) == (4 if proj_type == "full" else 2)
    assert all(tensor.is_contiguous() for tensor in tensors)
    live = [m for s in optimizer.state.values() for m in _matrices(s)]
    assert not all(matrix.is_contiguous() for matrix in live)
    fresh.load_state_dict(model.state_dict())
    again = build(name, fresh, proj_type=proj_type)
    again.load_state_dict(saved)
    loaded = [m for s in again.state.values() for m in _matrices(s)]
    assert [m.stride() for m in loaded] == [m.stride() for m in live]
    assert_same(train(fresh, again, range(4, 8)), straight)


def _flat(value):
    return value if isinstance(value, list | tuple) else [value]


def _matrices(state):
    return _flat(state.get("projector", []))


def test_two_processes_resume_exactly_from_what_rank_0_broadcasts(tmp_path):
    script = Path(__file__).with_name("broadcast.py")
    names = ["galore_adamw", "galore_adafactor"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script, str(rank), tmp_path / "store", *names],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors


@every_name
def test_a_gradient_that_is_not_finite_spoils_no_checkpoint(name):
    model, fresh = make_model(), make_model()
    optimizer, resumed = build(name, model), build(name, fresh)
    gradients(model, 0)
    model[0].weight.grad[0, 0] = float("nan")
    with pytest.raises(torch.linalg.LinAlgError):
        optimizer.step()
    by_file((model, optimizer), (fresh, resumed))
    assert_same(train(fresh, resumed, range(2)), train(model, optimizer, range(2)))
