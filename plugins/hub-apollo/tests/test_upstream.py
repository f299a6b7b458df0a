"""`apollo_adamw` trains as apollo_torch's class does."""

import pathlib
import subprocess
import sys

import pytest
import torch
from apollo_torch.svd_projector import GaLoreProjector
from hub_apollo.hooks import SPEC, APOLLOArguments

from hub.testing.comparing import assert_same, moved, weights
from hub.testing.upstream import equals_class, gradients, train

from .wrapped import (
    DTYPES,
    MINI,
    WRAPPED,
    both_projections,
    build,
    by_hand,
    every_dtype,
    every_projection,
    make_model,
    projector,
    resumed,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")


@every_dtype
@every_projection
def test_it_is_the_upstream_optimizer(projection, dtype):
    equals_class(WRAPPED, dtype=dtype, **projection)


@pytest.mark.parametrize("switch", ["correct_bias", "scale_front", "disable_nl"])
def test_every_switch_reaches_upstream(switch):
    default = APOLLOArguments.model_fields[switch].default
    (ours, _), _ = equals_class(WRAPPED, steps=5, **{switch: not default})
    without = make_model()
    assert moved(train(without, build(without), range(5)), weights(ours))


@pytest.mark.parametrize(
    ("proj_type", "target"), [("right", "0"), ("left", "2")], ids=["tall", "wide"]
)
def test_the_smaller_side_can_be_named(proj_type, target):
    ours, theirs = make_model(), make_model()
    train(ours, build(ours, target_modules=[target], proj_type=proj_type), range(4))
    assert_same(ours, train(theirs, build(theirs, target_modules=[target]), range(4)))


def zero_gradients(model):
    for parameter in model.parameters():
        parameter.grad.zero_()


@pytest.mark.parametrize("at", [0, 3], ids=["first", "later"])
@pytest.mark.parametrize("projection", [{}, MINI, {"proj": "svd"}], ids=["channel", "mini", "svd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_gradient_of_zeros_limits_nothing(projection, at, dtype):
    ours, theirs = make_model(dtype), make_model(dtype)
    optimizer, reference = build(ours, **projection), by_hand(theirs, **projection)
    for step in range(7):
        for model, stepped in ((ours, optimizer), (theirs, reference)):
            gradients(model, step)
            if step == at:
                zero_gradients(model)
            stepped.step()
        if step == at:
            for target in (theirs[0], theirs[2]):
                del reference.state[target.weight]["scaled_grad"]  # as before the first step
        if step == at + 1:
            ours, optimizer = resumed(ours, optimizer, **projection)
    assert_same(ours, theirs)


def test_only_weights_with_a_gradient_of_zeros_lose_their_limit():
    ours, theirs = make_model(), make_model()
    optimizer, reference = build(ours), by_hand(theirs)
    for step in range(6):
        for model, stepped in ((ours, optimizer), (theirs, reference)):
            gradients(model, step)
            if step == 2:
                model[0].weight.grad.zero_()
            stepped.step()
        for model in (ours, theirs):
            model[0].load_state_dict(make_model()[0].state_dict())
    assert torch.equal(ours[2].weight, theirs[2].weight)


def test_the_upstream_class_stops_after_a_gradient_of_zeros():
    """When this fails, `factory._limited` is not needed any more."""
    moves = []
    for make in (build, by_hand):
        model = make_model()
        optimizer = make(model, weight_decay=0.0)
        gradients(model, 0)
        zero_gradients(model)
        optimizer.step()
        before = weights(model)["0.weight"]
        train(model, optimizer, range(1, 20))
        moves.append((model[0].weight - before).abs().max().item())
    assert moves[0] > 1e-2
    assert moves[1] < 1e-8


@both_projections
def test_the_projection_takes_only_the_memory_of_its_rank(proj):
    model = make_model()
    optimizer = build(model, proj=proj)
    train(model, optimizer, [0])
    matrix = projector(optimizer, model[0].weight)
    assert matrix.untyped_storage().nbytes() == 4 * 24 * 4


def test_the_upstream_projector_keeps_the_whole_factor():
    """When this fails, `hub.updates.low_rank._dense` is not needed any more."""
    bare = GaLoreProjector(4)
    bare.project(torch.randn(40, 24), 0)
    assert bare.ortho_matrix.untyped_storage().nbytes() == 24 * 24 * 4


@pytest.mark.parametrize("precision", sorted(SPEC.precisions))
@every_projection
def test_every_weight_trains_in_every_precision(projection, precision):
    model = make_model(DTYPES.get(precision, torch.float32))
    before = weights(model)
    optimizer = build(model, **projection, precision=precision, weight_decay=0.0)
    mixed = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16-mixed")
    losses = []
    inputs = torch.randn(8, 24, generator=torch.Generator().manual_seed(0)).to(before["0.weight"])
    for _ in range(20):
        model.zero_grad()
        with torch.autocast("cpu", dtype=mixed, enabled=mixed is not None):
            loss = (model(inputs).float() - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert moved(model, before) == set(before)
    assert losses[-1] < 0.5 * losses[0]


def test_the_upstream_class_does_not_train_fp16_weights():
    """When this fails, `apollo_adamw` may declare fp16."""
    model = make_model(torch.float16)
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: grad * 0.01)  # the squares of some round to zero
    train(model, by_hand(model), range(20))
    assert not all(parameter.isfinite().all() for parameter in model.parameters())


def test_parameters_without_a_gradient_stay_and_can_come_back():
    model, other = make_model(), make_model()
    optimizer, reference = build(model), by_hand(other)
    before = weights(model)
    for step in range(6):
        for trained, stepped in ((model, optimizer), (other, reference)):
            gradients(trained, step)
            if step % 2 == 0:
                trained[0].weight.grad = None
            stepped.step()
        assert ("0.weight" in moved(model, before)) == (step > 0)
    assert_same(model, other)


def test_the_upstream_class_cannot_take_a_closure():
    """When this fails, `factory.APOLLOAdamW.step` is not needed any more."""
    model = make_model()
    with pytest.raises(RuntimeError, match="does not require grad"):
        by_hand(model).step(lambda: gradients(model, 0))


def test_it_trains_in_several_processes_as_in_one(tmp_path):
    script = pathlib.Path(__file__).with_name("sharded.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path / "store"])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
