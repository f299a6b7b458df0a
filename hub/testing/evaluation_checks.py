"""Check that a model in evaluation mode has the evaluation weights however it is used: P8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hub.running.train_eval.attach import eval_mode
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.kit_model import WIDTH
from hub.testing.subject import Subject, backward, differing, train

if TYPE_CHECKING:
    from torch import Tensor

    from hub.testing.kit_model import Model

STEPS = 4


def evaluates(subject: Subject) -> None:
    """P8: the evaluation weights of every step, whichever part of the model is called or saved.

    By `model.eval()` and by flags that are set, in the middle of an accumulation too; and no trace
    of it in the training.
    """
    if not subject.any_has(Trait.TRAIN_EVAL_MODES):
        return
    model, optimizer = subject.start()
    for step in range(STEPS):
        trained, expected = _undisturbed(subject, step)
        _compare(expected, model.state_dict(), f"a state dict after step {step}")
        _compare(expected, _part(model), f"a part's state dict after step {step}")
        model.eval()
        _compare(expected, weights(model), f"a method after step {step}")
        _set_flags(model, training=True)
        _call_a_part(subject, model)
        wrong = differing(trained, weights(model))
        expect(not wrong, f"training goes on after step {step} with other weights in {wrong}")
        _set_flags(model, training=False)
        _call_a_part(subject, model)
        _compare(expected, weights(model), f"a part called after step {step}")
        model.train()
        backward(model, step)
        model.state_dict()
        with eval_mode(optimizer):
            _call_a_part(subject, model)
        optimizer.step()
        optimizer.zero_grad()
    whole, other = subject.start()
    train(whole, other, STEPS)
    wrong = differing(weights(whole), weights(model))
    expect(not wrong, f"evaluating and saving left a trace in {wrong}")


def _undisturbed(subject: Subject, steps: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights for training and for evaluation, which nobody has looked at before."""
    model, optimizer = subject.start()
    train(model, optimizer, steps)
    trained = weights(model)
    with eval_mode(optimizer):
        return trained, weights(model)


def _compare(expected: dict[str, Tensor], found: dict[str, Tensor], where: str) -> None:
    wrong = [
        name for name in found if not torch.equal(found[name], expected.get(name, found[name]))
    ]
    expect(not wrong, f"{where} has other weights than those for evaluation: {wrong}")


def _part(model: Model) -> dict[str, Tensor]:
    part = model.get_submodule("blocks.0").state_dict()
    return {f"blocks.0.{name}": value for name, value in part.items()}


def _call_a_part(subject: Subject, model: Model) -> None:
    """Call a layer; one of each optimizer, as each looks after its own weights."""
    with torch.no_grad():
        for block in (0, 1) if subject.partner else (0,):
            layer = model.get_submodule(f"blocks.{block}.attn")
            layer(torch.zeros(1, WIDTH).to(model.gain))


def _set_flags(model: Model, *, training: bool) -> None:
    for module in model.modules():
        module.training = training
