"""Steps that end though nobody calls `step()`, and how a run goes on after them."""

import pytest

import hub
from hub.testing.comparing import assert_same, moved, through_a_file, weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.upstream import loss_at, small_model

from .wrapped import THEIRS, bf16_weights, build, every_dtype, every_name

pytestmark = bf16_weights


@every_name
@every_dtype
def test_a_run_continues_from_a_file_bit_for_bit(name, dtype):
    model = small_model(dtype)
    optimizer = build(name, model, max_grad_norm=0.1, clipping="previous_norm")
    for step in range(3):  # as under Accelerate: nobody calls step()
        optimizer.fused_backward(loss_at(model, step))
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = small_model(dtype)
    fresh.load_state_dict(saved[0])
    again = build(name, fresh, max_grad_norm=0.1, clipping="previous_norm")
    again.load_state_dict(saved[1])
    for each, stepper in ((model, optimizer), (fresh, again)):
        for step in range(3, 6):
            stepper.fused_backward(loss_at(each, step))
    assert_same(fresh, model)


@every_name
def test_one_optimizer_at_a_time(name):
    model = small_model()
    first = build(name, model)
    with pytest.raises(hub.UnsupportedError, match="still updates"):
        build(name, model)
    del first
    second = build(name, model)
    hub.detach(second)
    assert isinstance(build(name, model), THEIRS[name])


@every_name
def test_detached_it_does_not_step_in_the_backward_pass(name):
    model = small_model()
    optimizer = build(name, model)
    hub.detach(optimizer)
    with pytest.raises(hub.UnsupportedError, match="no longer steps"):
        optimizer.fused_backward(loss_at(model, 0))


def full_loss(model, step):
    model.take_detour = step % 2 == 0
    return loss_of(model, batch(step))


def zeros(_, optimizer):
    optimizer.zero_grad(set_to_none=False)


ENDINGS = [
    pytest.param(lambda _, optimizer: optimizer.step(), id="step"),
    pytest.param(lambda _, optimizer: optimizer.zero_grad(), id="optimizer.zero_grad"),
    pytest.param(zeros, id="zeros"),
    pytest.param(lambda model, _: model.zero_grad(), id="model.zero_grad"),
]


@every_name
@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("clipping", [None, "previous_norm"])
def test_clearing_gradients_ends_a_step(name, end, clipping):
    clip = {"max_grad_norm": 0.05, "clipping": clipping} if clipping else {}
    model, other = make_model(), make_model()
    ours, theirs = build(name, model, **clip), build(name, other, **clip)
    for step in range(6):
        full_loss(model, step).backward()
        end(model, ours)
        full_loss(other, step).backward()
        theirs.step()
        if end is zeros:  # which count as gradients of the detour
            end(other, theirs)
    assert_same(model, other)


@every_name
def test_a_backward_pass_over_released_gradients_is_refused(name):
    model = small_model()
    build_and_keep = build(name, model)
    loss_at(model, 0).backward()
    before = weights(model)
    with pytest.raises(hub.UnsupportedError, match="gradient_accumulation_steps"):
        loss_at(model, 1).backward()
    assert not moved(model, before)
    build_and_keep.step()


@every_name
def test_fused_backward_accumulates(name):
    model, other = make_model(), make_model()
    ours = build(name, model, gradient_accumulation_steps=2)
    theirs = build(name, other)
    hub.detach(theirs)
    for step in range(6):  # the detour gets a gradient in every other micro-batch only
        ours.fused_backward(full_loss(model, step) / 2)
        (full_loss(other, step) / 2).backward()
        if step % 2:
            theirs.step()
            theirs.zero_grad()
    assert_same(model, other)
