"""Which optimizers, in which form, leave room for activations in a given memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub.errors import HubError, OptimArgsError, PrecisionError
from hub.groups.modules import trainable_parameters
from hub.groups.walk import one_walk
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.names.registry import default_registry
from hub.planning.call import EstimateCall
from hub.planning.estimate import Estimate, estimate_prepared
from hub.planning.precision import detect_precision, stalls, stalls_below
from hub.planning.prepare import prepare
from hub.text import shown

if TYPE_CHECKING:
    from torch.nn import Module

    from hub.planning.state_size import Known
    from hub.spec import OptimizerSpec


@dataclass(frozen=True)
class Form:
    """A way to build an optimizer that takes other memory."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """As keywords of `hub.build`."""
    is_layerwise: bool = False

    @property
    def label(self) -> str:
        """The form in a few words; empty for that of the name alone."""
        words = [f"{key}={value}" for key, value in self.arguments.items()]
        return ", ".join(["layerwise"] * self.is_layerwise + words)


ARGUMENTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"rounding": "split"},
    {"rounding": "stochastic"},
    {"offload": "cpu"},
    {"rounding": "split", "offload": "cpu"},
    {"rounding": "stochastic", "offload": "cpu"},
)
"""Of the eager form and of the layerwise one."""
FORMS = tuple(Form(given, layerwise) for layerwise in (False, True) for given in ARGUMENTS)


@dataclass(frozen=True)
class Candidate:
    """An optimizer in one form, and what it takes."""

    name: str
    form: Form
    estimate: Estimate
    stalls: bool
    """Whether the plan warns that the weights' dtype rounds most updates to zero."""

    def left(self, memory: int) -> int:
        """Return the bytes that are left for activations; below 0 if it does not fit."""
        return memory - self.estimate.total


@dataclass(frozen=True)
class Candidates:
    """All that can train a model."""

    found: tuple[Candidate, ...]
    """Those that learn come before those that stall, and in both those that take less come first.
    Forms that take the same as a plainer one are left out."""
    refused: Mapping[str, HubError]
    """Why names cannot be counted, or cannot train it, in any form; for the plainest one."""
    stalls_below: float | None
    """The learning rate below which bf16 and fp16 weights stall, unless the optimizer compensates
    or `rounding` is given; None for other weights."""


def candidates(
    names: Iterable[str],
    model: Module,
    *,
    target_modules: str | Sequence[str] | None = None,
    precision: str | None = None,
    mesh: Sequence[int] | None = None,
    lr: float | None = None,
) -> Candidates:
    """Return what each optimizer takes in each of its forms.

    Args:
        names: Optimizers, without the suffix of layerwise forms.
        model: The model; it may be on the meta device.
        target_modules: For those that take some; by default "all-linear".
        precision: As for `hub.build`.
        mesh: As for `hub.estimate`.
        lr: The learning rate that is going to be used; by default that of each optimizer.

    Raises:
        UnknownOptimizerError: A name is not installed.
        OptimArgsError: `mesh` is not a shape, or `lr` is not a rate.
        HubError: The model has no parameters to train.
    """
    _check_rate(lr)
    found: list[Candidate] = []
    refused: dict[str, HubError] = {}
    specs = [default_registry().optimizer(name) for name in names]
    with one_walk(model):
        trainable = trainable_parameters(model)
        for spec in specs:
            targets = (target_modules or "all-linear") if spec.takes_targets else None
            common = {
                "target_modules": targets,
                "precision": precision,
                "mesh": mesh,
                "defaults": {} if lr is None else {"lr": lr},
            }
            try:
                found.extend(_distinct(_forms(spec, model, common)))
            except HubError as error:
                refused[spec.name] = error
        least = stalls_below(detect_precision(trainable), trainable)
    found.sort(key=lambda each: (each.stalls, each.estimate.total))
    return Candidates(tuple(found), refused, least)


def _check_rate(lr: float | None) -> None:
    if lr is not None and not 0 < lr < math.inf:
        raise OptimArgsError(
            f"{shown(lr)} is not a learning rate",
            where="lr",
            fix="pass a positive number, such as 2e-5",
        )


def _forms(spec: OptimizerSpec, model: Module, common: Mapping[str, Any]) -> Iterator[Candidate]:
    """Yield all forms that can train the model.

    Raises:
        HubError: None of them can; that of the plainest one.
    """
    known: Known = {}
    refusals: list[HubError] = []
    forms = [form for form in FORMS if not form.is_layerwise or has_layerwise_form(spec)]
    for form in forms:
        name = spec.name + LAYERWISE_SUFFIX * form.is_layerwise
        call = EstimateCall(name, model, **common, **form.arguments)
        try:
            prepared = prepare(call)
            estimate = estimate_prepared(prepared, call, known)
        except HubError as error:
            refusals.append(error)
            # Other forms help against a precision only, and counting may take a while.
            if form is FORMS[0] and not isinstance(error, PrecisionError):
                raise
        else:
            yield Candidate(spec.name, form, estimate, stalls(prepared.plan.findings))
    if len(refusals) == len(forms):
        raise refusals[0]


def _distinct(own: Iterable[Candidate]) -> Iterator[Candidate]:
    """Yield the candidates of one name, without those that take what an earlier one takes."""
    seen: list[tuple[Estimate, bool]] = []
    for each in own:
        if (each.estimate, each.stalls) not in seen:
            seen.append((each.estimate, each.stalls))
            yield each
