"""3-D parameters that are stacks of matrices, as mixtures of experts have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.groups.modules import is_convolution, is_experts, is_norm
from hub.groups.walk import walk_of

if TYPE_CHECKING:
    from torch.nn import Module, Parameter


@dataclass(frozen=True)
class Stack:
    """A 3-D parameter, and the module that owns it."""

    owner: Module
    weight: Parameter

    @property
    def of_experts(self) -> bool:
        """Whether its module is one of experts, so that its matrices are theirs."""
        return is_experts(self.owner)


def find_stacks(model: Module, embeddings: set[Parameter]) -> dict[str, Stack]:
    """Return every 3-D parameter that may be a stack, by its plain name.

    The weights of convolutions, embeddings and norms never are.
    """
    walk = walk_of(model)
    return {
        walk.plain(f"{prefix}.{name}" if prefix else name): Stack(module, parameter)
        for prefix, module in walk.modules
        if not (is_convolution(module) or is_norm(module))
        for name, parameter in module._parameters.items()  # noqa: SLF001 - as in `split`
        if parameter is not None and parameter.ndim == 3 and parameter not in embeddings  # noqa: PLR2004
    }
