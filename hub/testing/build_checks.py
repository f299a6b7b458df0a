"""Checks of what building gives and leaves: P1, P4, P10, P11, P12."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import warnings
from collections import Counter
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING, Any

import torch
from packaging.utils import canonicalize_name

from hub.errors import HubError, PluginError
from hub.running.attach import detach
from hub.running.steps import members_of
from hub.testing.comparing import through_a_file, weights
from hub.testing.expect import expect
from hub.testing.subject import Subject, differing, may_round_away, train

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from hub.testing.kit_model import Model


def is_optimizer(subject: Subject) -> None:
    """P1: a `torch.optim.Optimizer`, and an instance of a class of the package behind it."""
    _, optimizer = subject.start()
    expect(isinstance(optimizer, torch.optim.Optimizer), type(optimizer))
    for method in ("step", "zero_grad", "state_dict", "load_state_dict", "add_param_group"):
        expect(callable(getattr(optimizer, method)), method)
    for group in optimizer.param_groups:
        expect({"params", "lr", "name", "param_names"} <= group.keys(), sorted(group))
    specs = [subject.spec, *subject.others.values()]
    for member, spec in zip(members_of(optimizer), specs, strict=True):
        _is_of_package(member, spec.package)


def _is_of_package(optimizer: Optimizer, package: str) -> None:
    owners = packages_distributions()
    homes = {cls.__module__.partition(".")[0] for cls in type(optimizer).__mro__}
    # An editable installation does not list its modules; their names then have to do.
    distributions = {name for home in homes for name in (home, *owners.get(home, ()))}
    expect(
        canonicalize_name(package) in {canonicalize_name(name) for name in distributions},
        f"{type(optimizer).__name__} is not a class of {package}: {type(optimizer).__mro__}",
    )


def covers(subject: Subject) -> None:
    """P4: each trainable parameter in one group, frozen ones in none and never moved.

    Nor is a parameter moved by a step in which it has no gradient.
    """
    model, optimizer = subject.start()
    grouped = Counter(id(p) for group in optimizer.param_groups for p in group["params"])
    expected = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    expect(set(grouped) == set(expected), "the groups do not hold exactly the trainable parameters")
    expect(set(grouped.values()) == {1}, "a parameter is in two groups")
    named = dict(model.named_parameters())
    for group in optimizer.param_groups:
        pairs = zip(group["param_names"], group["params"], strict=True)
        expect(all(named[name] is p for name, p in pairs), "param_names do not fit params")
    before = weights(model)
    for parameter in model.frozen.parameters():
        parameter.grad = torch.ones_like(parameter)
    train(model, optimizer, 4)
    after = weights(model)
    moved = differing(before, after)
    expect(not [n for n in moved if n.startswith("frozen")], "frozen parameters moved")
    counted = {key for group in optimizer.param_groups for key in group}
    missing = sorted(subject.spec.step_counters - counted)
    expect(
        not missing,
        f"the spec declares the step_counters {missing}, which no group has after a step",
    )
    still = [n for n in expected.values() if n not in (*moved, *may_round_away(subject))]
    expect(not still, f"trainable parameters never moved: {still}")
    train(model, optimizer, 1, start=5)  # odd steps leave the detour out
    idle = [n for n in differing(after, weights(model)) if n.startswith("detour")]
    expect(not idle, f"parameters without a gradient moved: {idle}")


def late_group(subject: Subject) -> None:
    """P4: parameters that are unfrozen later join with `add_param_group`, and are trained.

    A run that is resumed with them continues bit for bit.
    """
    model, optimizer = subject.start()
    train(model, optimizer, 2)
    before_it = len(optimizer.param_groups)
    late = _join(model, optimizer)
    with torch.no_grad():
        model.gain.add_(0.1)  # the factor of zeros after it lets no gradient through
    before = weights(model)
    train(model, optimizer, 4, start=2)
    still = [name for name in late if torch.equal(model.get_parameter(name), before[name])]
    expect(not still, f"parameters that joined later are not trained: {still}")
    saved = optimizer.state_dict()
    found = [name for group in saved["param_groups"][before_it:] for name in group["param_names"]]
    expect(sorted(found) == sorted(late), "the late group is not saved by its names")
    again, resumed = subject.start()
    _join(again, resumed)
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(through_a_file(saved))
    for each, stepped in ((model, optimizer), (again, resumed)):
        train(each, stepped, 2, start=6)
    wrong = differing(weights(model), weights(again))
    expect(not wrong, f"resuming with a late group is off in {wrong}")


def _join(model: Model, optimizer: Optimizer) -> list[str]:
    """Unfreeze the frozen layer and add its parameters; return their names."""
    late = {f"frozen.{name}": p for name, p in model.frozen.named_parameters()}
    for parameter in late.values():
        parameter.requires_grad_(True)
    optimizer.add_param_group({"params": late.values()})
    return list(late)


def refused(subject: Subject) -> None:
    """P10: a build in a dtype or on a device that is not declared is refused, with a reason."""
    model = subject.model()
    with _unchanged(model):
        error = _error_of(subject, model)
    expect(error.what, "the refusal has no reason")
    expect(subject.precision in error.what or subject.device in error.what, str(error))


def no_trace(subject: Subject) -> None:
    """P11: building draws no random numbers, prints nothing and leaves nothing behind."""
    detach(subject.start()[1])  # imports the backend, which may do all of it
    model = subject.model()
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), _unchanged(model):
        optimizer = subject.build(model)
        detach(optimizer)
    expect(not output.getvalue(), f"building printed {output.getvalue()!r}")


def bad_input(subject: Subject) -> None:
    """P12: a `HubError` that says what and where; the model stays as it was."""
    inputs: tuple[dict[str, Any], ...] = (
        {"no_such_argument": 1},
        {"optim_args": "lr=(1"},
        {"optim_args": "lr=1e-3,lr=1e-3"},
        {"optim_args": {"lr": "fast"}, "lr": 0.1},
        {"optim_args": 3},
        {"param_rules": {"no such parameter": {"lr": 1e-3}}},
        {"target_modules": "no such module"},
        {"max_grad_norm": -1.0},
        *({argument: object()} for argument in subject.spec.arguments.model_fields),
    )
    for arguments in inputs:
        model = subject.model()
        with _unchanged(model):
            error = _error_of(subject, model, **arguments)
        blamed = isinstance(error, PluginError)
        expect(not blamed, f"{arguments} should be refused as bad input, and is not: {error}")
        expect(error.what, f"{arguments}: the error does not say what is wrong")
        expect(error.where, f"{arguments}: the error does not say where")


def _error_of(subject: Subject, model: Model, **arguments: Any) -> HubError:
    try:
        subject.build(model, **arguments)
    except HubError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{arguments} raises {error!r}, which is not a HubError") from error
    raise AssertionError(f"{arguments or subject} is built, and should be refused")


@contextlib.contextmanager
def _unchanged(model: Model) -> Any:
    before, values = _snapshot(model), weights(model)
    yield
    after = _snapshot(model)
    for key, value in before.items():
        expect(after[key] == value, f"building changed {key}: {value} → {after[key]}")
    expect(not differing(values, weights(model)), "building changed weights")


def _snapshot(model: Model) -> dict[str, Any]:
    """Everything that building must leave alone, but for the weights' values."""
    root = logging.getLogger()
    return {
        "a module's attributes": {
            name: sorted(vars(module)) for name, module in model.named_modules()
        },
        "a module's hooks": {
            name: {key: len(value) for key, value in vars(module).items() if "_hooks" in key}
            for name, module in model.named_modules()
        },
        "a parameter": {
            name: (
                id(p),
                p.data_ptr(),
                p.stride(),
                p.requires_grad,
                p.grad is None,
                sorted(vars(p)),
                len(p._post_accumulate_grad_hooks or ()),  # noqa: SLF001 - torch has no public way
                len(p._backward_hooks or ()),  # noqa: SLF001
            )
            for name, p in model.named_parameters()
        },
        "torch's random numbers": torch.get_rng_state().tolist(),
        "Python's random numbers": random.getstate(),
        "the warnings filters": list(warnings.filters),
        "the root logger": (root.level, list(root.handlers), list(root.filters)),
        "torch's default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
    }
