"""Checkpoints of `apollo_adamw`, and of apollo_torch's class."""

import pickle
from copy import deepcopy
from functools import partial
from tempfile import TemporaryDirectory

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.upstream import by_distributed, by_file, by_pickle, continues, gradients, train

from .wrapped import (
    both_projections,
    build,
    by_hand,
    by_hand_with_own_seeds,
    every_dtype,
    every_projection,
    make_model,
    projector,
    resumed,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@pytest.mark.parametrize("steps", [3, 4], ids=["before a new projection", "between"])
@every_dtype
@every_projection
def test_it_resumes_exactly(projection, dtype, steps):
    continues(build, build, model=partial(make_model, dtype), steps=steps, **projection)


@both_projections
def test_it_resumes_exactly_after_several_loads(proj):
    def through_another(saved, fresh):
        by_file(resumed(*saved, proj=proj), fresh)

    builds = [build] * 4
    continues(*builds, model=make_model, steps=2, hand_over=through_another, proj=proj)


def on_disk(saved, fresh):
    """Load what `torch.distributed.checkpoint` writes to a folder."""
    fresh[0].load_state_dict(saved[0].state_dict())
    with TemporaryDirectory() as folder:
        written = {"optimizer": get_optimizer_state_dict(*saved)}
        dcp.save(written, checkpoint_id=folder, no_dist=True)
        read = {"optimizer": get_optimizer_state_dict(*fresh)}
        dcp.load(read, checkpoint_id=folder, no_dist=True)
    set_optimizer_state_dict(*fresh, read["optimizer"])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("hand_over", [by_distributed, on_disk])
@every_projection
def test_a_distributed_checkpoint_resumes_exactly(projection, hand_over):
    continues(build, build, model=make_model, hand_over=hand_over, **projection)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_of_the_upstream_class_loses_its_state(tmp_path):
    """When this fails, the state need not be empty at first (`factory.APOLLOAdamW.__init__`)."""
    model, fresh = make_model(), make_model()
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    saved = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.save(saved, checkpoint_id=tmp_path, no_dist=True)
    loaded = {"optimizer": get_optimizer_state_dict(fresh, by_hand(fresh))}
    dcp.load(loaded, checkpoint_id=tmp_path, no_dist=True)
    assert set(loaded["optimizer"]["state"]["0.weight"]) == {"seed"}


def test_upstream_checkpoints_need_full_unpickling():
    """When this fails, `saved.plain_state` may not be needed any more."""
    model = make_model()
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    with pytest.raises(pickle.UnpicklingError, match="GradientProjector"):
        through_a_file(optimizer.state_dict())


@every_projection
def test_a_checkpoint_that_upstream_pickled_is_loaded(projection):
    builds = by_hand_with_own_seeds, build
    run = continues(*builds, model=make_model, steps=5, hand_over=by_pickle, **projection)
    again = resumed(*run, **projection)
    assert_same(train(*again, range(10, 13)), train(*run, range(10, 13)))


def test_what_is_loaded_from_a_live_optimizer_is_not_shared():
    for source in (by_hand_with_own_seeds, build):
        model, other = make_model(), make_model()
        reference, optimizer = source(model, proj="svd"), build(other, proj="svd")
        train(model, reference, [0])
        optimizer.load_state_dict(reference.state_dict())
        live, loaded = projector(reference, model[0].weight), projector(optimizer, other[0].weight)
        assert live is not loaded


@both_projections
def test_a_checkpoint_of_upstream_before_its_first_step_is_loaded(proj):
    straight, model = make_model(), make_model()
    train(straight, by_hand_with_own_seeds(straight, proj=proj), range(4))
    optimizer = build(model, proj=proj)
    optimizer.load_state_dict(by_hand_with_own_seeds(make_model(), proj=proj).state_dict())
    model, optimizer = resumed(model, optimizer, proj=proj)
    assert_same(train(model, optimizer, range(4)), straight)


def test_a_projection_that_does_not_follow_from_its_seed_is_refused():
    model = make_model()
    reference = by_hand(model)
    train(model, reference, range(2))
    state_dict = reference.state_dict()
    for state in state_dict["state"].values():
        state["seed"] = 12345
    optimizer = build(make_model())
    with pytest.raises(hub.CheckpointError, match="not drawn from the seed"):
        optimizer.load_state_dict(state_dict)


def test_copies_go_on_exactly():
    model = make_model()
    optimizer = build(model, proj="svd", scale_front=True)
    train(model, optimizer, range(4))
    hub.detach(optimizer)
    other, copy = deepcopy((model, optimizer))
    assert_same(train(other, copy, range(4, 8)), train(model, optimizer, range(4, 8)))
    through_a_file(copy.state_dict())


def test_copies_of_the_upstream_class_fail():
    """When this fails, `factory.APOLLOAdamW.__getstate__` is not needed any more."""
    model, optimizer = deepcopy((model := make_model(), by_hand(model)))
    with pytest.raises(AttributeError, match="scale_front"):
        train(model, optimizer, [0])


def test_an_svd_projector_is_saved_by_rows_and_comes_back_with_its_strides():
    """`dist.broadcast` sends memory as it lies, and products round by the order of strides."""
    model, fresh = make_model(), make_model()
    optimizer, again = build(model, proj="svd"), build(fresh, proj="svd")
    train(model, optimizer, range(2))
    saved = through_a_file(optimizer.state_dict())
    matrices = [s["projector"] for s in saved["state"].values() if "projector" in s]
    assert matrices
    assert all(matrix.is_contiguous() for matrix in matrices)
    fresh.load_state_dict(model.state_dict())
    again.load_state_dict(saved)
    strides = [
        [s["projector"].stride() for s in each.state.values() if "projector" in s]
        for each in (optimizer, again)
    ]
    assert strides[0] == strides[1]
    assert_same(train(model, optimizer, range(2, 6)), train(fresh, again, range(2, 6)))


def test_a_checkpoint_of_another_projection_is_refused():
    model = make_model()
    optimizer = build(model)
    train(model, optimizer, [0])
    other = build(make_model(), rank=2)
    with pytest.raises(hub.CheckpointError, match="rank 4 → 2"):
        other.load_state_dict(optimizer.state_dict())


def test_a_gradient_that_is_not_finite_spoils_no_checkpoint_of_svd():
    model = make_model()
    optimizer = build(model, proj="svd")
    gradients(model, 0)
    model[0].weight.grad[0, 0] = float("nan")
    with pytest.raises(torch.linalg.LinAlgError):
        optimizer.step()
    fresh, continued = resumed(model, optimizer, proj="svd")
    assert_same(train(fresh, continued, range(2)), train(model, optimizer, range(2)))
