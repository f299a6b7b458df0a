"""Optimizers with weights of their own for evaluation switch with the model's mode."""

import copy
import gc
import io
import pickle

import pytest
import torch
from helpers.train_eval import evaluated
from torch import nn

import hub
from hub.testing.comparing import assert_same, through_a_file, weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import backward, train

NAMES = ["schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"]
DTYPES = [torch.float32, torch.bfloat16]


def built(name="schedule_free_adamw", dtype=torch.float32, model=None, **arguments):
    model = make_model(dtype) if model is None else model
    if "radam" in name:
        arguments = {"silent_sgd_phase": False, **arguments}
    return model, hub.build(name, model, lr=1e-2, **arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_evaluation_sees_the_averaged_weights_and_leaves_no_trace(name, dtype):
    model, optimizer = built(name, dtype)
    other, untouched = built(name, dtype)
    for step in range(6):
        train(model, optimizer, 1, start=step)
        train(other, untouched, 1, start=step)
        loss = evaluated(model)
        with hub.eval_mode(untouched):
            assert loss == loss_of(other, batch(99)).item()
        if step > 2:  # the first averages are what they are of
            assert loss != loss_of(other, batch(99)).item()
    backward(model, 6)
    assert_same(other, model)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["", "_layerwise"])
def test_state_dicts_hold_the_averaged_weights_and_resume_exactly(name, dtype, form):
    whole, optimizer = built(name + form, dtype)
    train(whole, optimizer, 8)
    model, optimizer = built(name + form, dtype)
    train(model, optimizer, 4)
    reference = copy.deepcopy(weights(model))
    saved = through_a_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    with hub.eval_mode(optimizer):
        for key, p in model.named_parameters():
            assert torch.equal(saved["model"][key], p)
    assert not torch.equal(saved["model"]["embed.weight"], reference["embed.weight"])
    assert not any(group["train_mode"] for group in saved["optimizer"]["param_groups"])
    train(model, optimizer, 4, start=4)
    assert_same(whole, model)
    for first in ("model", "optimizer"):  # in either order
        model, optimizer = built(name + form, dtype)
        for part in (first, *({"model", "optimizer"} - {first})):
            # A copy, since torch shares state tensors with what it loads.
            {"model": model, "optimizer": optimizer}[part].load_state_dict(
                copy.deepcopy(saved[part])
            )
        train(model, optimizer, 4, start=4)
        assert_same(whole, model)


def bare_class():
    """Return a model and upstream's class, over the groups that hub makes."""
    from schedulefree import AdamWScheduleFree

    model, optimizer = built()
    hub.detach(optimizer)
    groups = [{"params": group["params"]} for group in optimizer.param_groups]
    return model, AdamWScheduleFree(groups, lr=1e-2)


def test_the_bare_class_continues_hubs_checkpoint():
    model, optimizer = built()
    train(model, optimizer, 4)
    saved = through_a_file((model.state_dict(), optimizer.state_dict()))
    (bare, continued), (other, whole) = bare_class(), bare_class()
    bare.load_state_dict(saved[0])
    continued.load_state_dict(saved[1])
    continued.train()
    train(bare, continued, 2, start=4)
    whole.train()
    train(other, whole, 4)
    whole.eval()
    whole.train()  # which rounds on the way back, as it did above
    train(other, whole, 2, start=4)
    assert_same(bare, other)


def test_weights_loaded_during_evaluation_are_what_training_goes_on_with():
    """As `load_best_model_at_end` does."""
    model, optimizer = built()
    train(model, optimizer, 4)
    best = copy.deepcopy(model.state_dict())
    train(model, optimizer, 4, start=4)
    model.eval()
    model.load_state_dict(best)
    # Upstream computes the training weights from those, and the others from them: two roundings.
    assert evaluated(model) == pytest.approx(evaluated(model), rel=1e-6)
    backward(model, 8)
    with hub.eval_mode(optimizer):
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), best[name])


def test_a_step_whose_forward_pass_was_in_evaluation_mode_warns():
    model, optimizer = built()
    train(model, optimizer, 2)
    model.eval()
    backward(model, 2)
    with pytest.warns(hub.HubWarning, match="gradients of this step belong to the evaluation"):
        optimizer.step()
    model.train()
    train(model, optimizer, 1, start=3)


def test_saving_between_forward_pass_and_step_is_no_evaluation():
    model, optimizer = built()
    other, reference = built()
    for step in range(3):
        backward(model, step)
        model.state_dict()
        optimizer.step()
        optimizer.zero_grad()
    train(other, reference, 3)
    assert_same(other, model)


def test_a_closure_that_evaluates_the_model():
    model, optimizer = built()
    other, reference = built()
    for step in range(3):
        optimizer.step(lambda step=step: (optimizer.zero_grad(), backward(model, step))[1])
        evaluated(model)
    train(other, reference, 3)
    backward(model, 3)
    assert_same(other, model)


@pytest.mark.parametrize("dtype", DTYPES)
def test_its_own_methods_leave_no_trace_either(dtype):
    """Transformers' Trainer calls them."""
    model, optimizer = built(dtype=dtype)
    other, reference = built(dtype=dtype)
    for step in range(4):
        train(model, optimizer, 1, start=step)
        train(other, reference, 1, start=step)
        optimizer.eval()
        evaluated(model)
        optimizer.train()
        assert_same(other, model)


def test_copies_of_the_model_are_models_of_their_own():
    model, optimizer = built()
    train(model, optimizer, 2)
    before = weights(model)
    file = io.BytesIO()
    pickle.dump(model, file)
    for twin in (copy.deepcopy(model), pickle.loads(file.getvalue())):
        twin.eval()
        loss_of(twin, batch(0))
        twin.state_dict()
        assert_same(twin, model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_hooks_go_with_the_optimizer_or_when_it_is_detached():
    model, optimizer = built()
    assert len(model._forward_pre_hooks) == 1
    hub.detach(optimizer)
    assert not model._forward_pre_hooks
    assert not model._state_dict_pre_hooks
    train(model, optimizer, 2)
    before = weights(model)
    model.eval()
    loss_of(model, batch(0))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    other, gone = built()
    del gone
    gc.collect()
    evaluated(other)


class Lightning(nn.Module):
    """What matters of a Lightning module: its steps are called, and not it."""

    def __init__(self):
        super().__init__()
        self.net = make_model()

    def training_step(self, tokens):
        return loss_of(self.net, tokens)


def test_a_module_whose_steps_call_its_children():
    module = Lightning()
    other, reference = built()
    _, optimizer = built(model=module)
    for step in range(3):
        module.net.take_detour = True
        module.training_step(batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
        module.eval()
        module.training_step(batch(99))
        module.train()
        other.take_detour = True
        loss_of(other, batch(step)).backward()
        reference.step()
        reference.zero_grad()
    module.training_step(batch(3))
    assert_same(other, module.net)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_compiled_model(backend):
    losses = []
    for compiled in (False, True):
        model, optimizer = built()
        run = torch.compile(model, backend=backend) if compiled else model
        found = []
        for step in range(4):
            run.train()
            loss_of(run, batch(step)).backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(evaluated(run))
        losses.append(found)
    assert losses[0] == losses[1]
