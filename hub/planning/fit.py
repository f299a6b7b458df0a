"""Which optimizers, in which form, leave room for activations in a given memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub.errors import HubError
from hub.groups.walk import one_walk
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.names.registry import default_registry
from hub.planning.call import EstimateCall
from hub.planning.estimate import Estimate, estimate_call

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

    def left(self, memory: int) -> int:
        """Return the bytes that are left for activations; below 0 if it does not fit."""
        return memory - self.estimate.total


@dataclass(frozen=True)
class Candidates:
    """All that can train a model."""

    found: tuple[Candidate, ...]
    """Those that take less come first, and forms that take the same as a plainer one are left
    out."""
    refused: Mapping[str, HubError]
    """Why names cannot be counted, or cannot train it, in any form."""


def candidates(
    names: Iterable[str],
    model: Module,
    *,
    target_modules: str | Sequence[str] | None = None,
    precision: str | None = None,
    mesh: Sequence[int] | None = None,
) -> Candidates:
    """Return what each optimizer takes in each of its forms.

    Args:
        names: Optimizers, without the suffix of layerwise forms.
        model: The model; it may be on the meta device.
        target_modules: For those that take some; by default "all-linear".
        precision: As for `hub.build`.
        mesh: As for `hub.estimate`.

    Raises:
        UnknownOptimizerError: A name is not installed.
        OptimArgsError: `mesh` is not a shape.
    """
    found: list[Candidate] = []
    refused: dict[str, HubError] = {}
    specs = [default_registry().optimizer(name) for name in names]
    with one_walk(model):
        for spec in specs:
            targets = (target_modules or "all-linear") if spec.takes_targets else None
            common = {"target_modules": targets, "precision": precision, "mesh": mesh}
            try:
                found.extend(_distinct(_forms(spec, model, common)))
            except HubError as error:
                refused[spec.name] = error
    return Candidates(tuple(sorted(found, key=lambda each: each.estimate.total)), refused)


def _forms(spec: OptimizerSpec, model: Module, common: Mapping[str, Any]) -> Iterator[Candidate]:
    """Yield all forms that can train the model.

    Raises:
        HubError: The plain one cannot.
    """
    known: Known = {}
    for form in FORMS:
        if form.is_layerwise and not has_layerwise_form(spec):
            continue
        name = spec.name + LAYERWISE_SUFFIX * form.is_layerwise
        call = EstimateCall(name, model, **common, **form.arguments)
        try:
            yield Candidate(spec.name, form, estimate_call(call, known))
        except HubError:
            if form is FORMS[0]:
                raise


def _distinct(own: Iterable[Candidate]) -> Iterator[Candidate]:
    """Yield the candidates of one name, without those that take what an earlier one takes."""
    seen: list[Estimate] = []
    for each in own:
        if each.estimate not in seen:
            seen.append(each.estimate)
            yield each
