"""Checks of what must not be mixed up: copies, foreign shapes, and tensors of a state dict."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hub.errors import CheckpointError, HubError, UnsupportedError
from hub.running.attach import detach
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.subject import Subject, differing, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.testing.kit_model import Model

BEFORE, AFTER = 2, 2


def other_shapes(subject: Subject) -> None:
    """P12: the state of a model of other shapes is refused, and leaves the optimizer as it was."""
    model, optimizer = subject.start()
    train(model, optimizer, BEFORE)
    other = subject.build(_doubled(subject.model()))
    before = _snapshot(other)
    try:
        other.load_state_dict(optimizer.state_dict())
    except CheckpointError as error:
        names = [name for group in other.param_groups for name in group["param_names"]]
        expect(any(name in str(error) for name in names), f"{error} names no parameter")
    else:
        raise AssertionError("the state of a model of other shapes is accepted")
    expect(_snapshot(other) == before, "the refused state dict changed the optimizer")


def shares_nothing(subject: Subject) -> None:
    """P5: training on from a state dict leaves that, and the optimizer it is of, as they were.

    The optimizer that was saved trains on as if it had not been.
    """
    model, optimizer = subject.start()
    train(model, optimizer, BEFORE)
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved["state"])
    twin, other = subject.start()
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(saved)
    train(twin, other, AFTER, start=BEFORE)
    expect(_same(before, saved["state"]), "training on changes the state dict that was loaded")
    whole, undisturbed = subject.start()
    train(whole, undisturbed, BEFORE + AFTER)
    train(model, optimizer, AFTER, start=BEFORE)
    wrong = differing(weights(whole), weights(model))
    expect(not wrong, f"saving or loading changes the optimizer that was saved, in {wrong}")


def copies(subject: Subject) -> None:
    """P7: a copy clips, and does all else that the original does, or is refused with the fix.

    After `hub.detach`, a copy trains as the original does, unless the upstream class says that it
    cannot be copied.
    """
    clipping = {} if subject.any_has(Trait.STEPS_IN_BACKWARD) else {"max_grad_norm": 1e-3}
    whole, original = subject.start(**clipping)
    train(whole, original, BEFORE + AFTER)
    for make in (copy.deepcopy, copy.copy, _pickled):
        _refused_or_equal(subject, make, weights(whole), clipping)
    for make in (copy.deepcopy, _pickled):
        _equal_when_detached(subject, make)


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - written here


def _equal_when_detached(subject: Subject, make: Callable[[Any], Any]) -> None:
    model, optimizer = subject.start()
    train(model, optimizer, BEFORE)
    detach(optimizer)
    try:
        twin, other = make((model, optimizer))
    except NotImplementedError:  # as the tensor subclasses of torchao 0.18 do
        return
    except UnsupportedError as error:  # hub still steps it, as with `rounding`
        expect(error.fix, "the error says no fix")
        return
    for each, stepped in ((model, optimizer), (twin, other)):
        train(each, stepped, AFTER, start=BEFORE)
    wrong = differing(weights(model), weights(twin))
    expect(not wrong, f"a copy of the detached optimizer trains differently in {wrong}")


def _refused_or_equal(
    subject: Subject,
    make: Callable[[Any], Any],
    expected: dict[str, Tensor],
    clipping: dict[str, Any],
) -> None:
    model, optimizer = subject.start(**clipping)
    train(model, optimizer, BEFORE)
    try:
        twin, other = (model, make(optimizer)) if make is copy.copy else make((model, optimizer))
    except HubError as error:
        expect(error.fix, f"the refusal to be copied does not say what to do instead: {error}")
        return
    train(twin, other, AFTER, start=BEFORE)
    wrong = differing(expected, weights(twin))
    expect(not wrong, f"a copy is made, and trains differently from the original: {wrong}")


def _doubled(model: Model) -> Model:
    """Return a model whose trainable parameters have the same names, and a longer last side."""
    for module in model.modules():
        for name, parameter in module._parameters.items():  # noqa: SLF001 - to replace them
            if parameter is not None and parameter.requires_grad:
                longer = torch.cat([parameter.detach()] * 2, dim=-1)
                module._parameters[name] = nn.Parameter(longer)  # noqa: SLF001
    model.head.weight = model.embed.weight
    return model


def _snapshot(optimizer: Optimizer) -> str:
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return str((groups, [len(state) for state in optimizer.state.values()]))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor, which has NaN where bf16 stands for other bits."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
