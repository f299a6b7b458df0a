"""What a plugin receives about the model that it builds an optimizer for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hub.spec.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.nn import Module, Parameter


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """One planned group of parameters."""

    name: str
    """The group's name, also in `optimizer.param_groups`."""
    parameters: tuple[tuple[str, Parameter], ...]
    """Names and tensors, in model order."""
    overrides: Mapping[str, Any]
    """The arguments set on this group. They always include `weight_decay` and, for a low-rank
    group, those of `OptimizerSpec.low_rank`."""
    low_rank: bool = False
    """Whether the parameters are weights of target modules."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """What a plugin receives about the model it builds an optimizer for."""

    model: Module
    """The model that the optimizer is built for."""
    groups: tuple[ParameterGroup, ...]
    """The planned groups, in order."""
    precision: Precision
    """The precision that the optimizer steps in: that of the model, but fp32 if hub steps fp32
    copies of bf16 and fp16 weights (`rounding`)."""
    embeddings: frozenset[str] = frozenset()
    """The names of the weights of the model's embeddings, including frozen ones."""
    transposed: frozenset[str] = frozenset()
    """The names of the weights that are stored as (in, out) instead of (out, in), as in the class
    Conv1D of Transformers."""

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the name and tensor of every parameter, group by group."""
        for group in self.groups:
            yield from group.parameters

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter, group by group."""
        for _, parameter in self.named_parameters():
            yield parameter

    def param_groups(self) -> list[dict[str, Any]]:
        """Return new `torch.optim` parameter groups, for an optimizer's constructor.

        Low-rank groups have `low_rank=True`.
        """
        return [
            {
                "params": [parameter for _, parameter in group.parameters],
                "param_names": [name for name, _ in group.parameters],
                "name": group.name,
                **group.overrides,
                **({"low_rank": True} if group.low_rank else {}),
            }
            for group in self.groups
        ]
