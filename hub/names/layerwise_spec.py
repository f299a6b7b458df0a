"""The layerwise form of an optimizer: its name, and its spec derived from the eager one's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hub.errors import UnsupportedError
from hub.spec import Trait

if TYPE_CHECKING:
    from hub.spec import OptimizerSpec

LAYERWISE_SUFFIX = "_layerwise"


def has_layerwise_form(spec: OptimizerSpec) -> bool:
    """Whether an optimizer has a second form, which steps inside the backward pass."""
    return Trait.PER_PARAMETER in spec.traits and Trait.STEPS_IN_BACKWARD not in spec.traits


def layerwise_spec(spec: OptimizerSpec) -> OptimizerSpec:
    """Return the spec of an optimizer's layerwise form.

    Raises:
        UnsupportedError: It has none; the error says why.
    """
    if not has_layerwise_form(spec):
        raise UnsupportedError(
            f"{spec.name} already steps inside the backward pass"
            if Trait.STEPS_IN_BACKWARD in spec.traits
            else f"{spec.name} cannot update one parameter at a time: "
            + (spec.why_not_layerwise or "its plugin does not declare Trait.PER_PARAMETER"),
            where=spec.name + LAYERWISE_SUFFIX,
            fix=f"use '{spec.name}'",
        )
    from hub.arguments import InBackward

    arguments = type(
        f"Layerwise{spec.arguments.__name__}",
        (spec.arguments, InBackward),
        {"__doc__": f"{spec.arguments.__doc__} Updated inside the backward pass."},
    )
    return replace(
        spec,
        name=spec.name + LAYERWISE_SUFFIX,
        summary=f"{spec.summary}; updated inside the backward pass",
        arguments=arguments,
        traits=spec.traits | {Trait.STEPS_IN_BACKWARD},
        precisions=spec.precisions - {"fp16-mixed"},
        shares_state_with=spec.shares_state_with or spec.name,
        eager_spec=spec,
    )
