"""What each bitsandbytes name builds. Imports neither torch nor bitsandbytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hub_bitsandbytes import arguments

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor

BLOCK = 256
"""Elements that share one scale in 8-bit state (bitsandbytes 0.50.2, `optim/optimizer.py`)."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the names of one algorithm share."""

    title: str
    per_group: frozenset[str]
    paper: str
    arguments: dict[int, type[BaseModel]]
    """By the bits of the state."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """What one name builds."""

    family: Family
    upstream: str
    """The class in `bitsandbytes.optim`."""
    bits: Literal[8, 32]
    paged: bool = False
    shares_state_with: str = ""

    @property
    def is_8bit(self) -> bool:
        """Whether state is kept in 8 bits, but for parameters that `keeps_32_bits` names."""
        return self.bits == 8  # noqa: PLR2004


_DECAYS_AFTER = (
    "CUDA decays the updated weight, CPU the one before (bitsandbytes issue 2010): they differ by "
    "lr * weight_decay of the update."
)
ADAMW = Family(
    title="AdamW",
    per_group=frozenset({"lr", "weight_decay", "betas", "eps"}),
    paper="https://arxiv.org/abs/1711.05101",
    arguments={8: arguments.AdamW8bitArguments, 32: arguments.AdamWArguments},
    notes=("amsgrad is left out: bitsandbytes refuses or ignores it.", _DECAYS_AFTER),
)
ADEMAMIX = Family(
    title="AdEMAMix",
    per_group=frozenset({"lr", "weight_decay", "betas", "eps", "alpha", "t_alpha", "t_beta3"}),
    paper="https://arxiv.org/abs/2409.03137",
    arguments={8: arguments.AdEMAMix8bitArguments, 32: arguments.AdEMAMixArguments},
    notes=("Two betas leave the third at 0.9999; the upstream class sets it to 0.", _DECAYS_AFTER),
)
LION = Family(
    title="Lion",
    per_group=frozenset({"lr", "weight_decay", "betas"}),
    paper="https://arxiv.org/abs/2302.06675",
    arguments={8: arguments.Lion8bitArguments, 32: arguments.LionArguments},
)
RMSPROP = Family(
    title="RMSprop",
    per_group=frozenset({"lr", "weight_decay", "eps"}),
    paper="https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf",
    arguments={8: arguments.RMSprop8bitArguments, 32: arguments.RMSpropArguments},
    notes=(
        "momentum and centered are left out: bitsandbytes ignores the first, refuses the second.",
        "weight_decay is an L2 penalty, as in torch.optim.RMSprop, not decoupled.",
    ),
)

# The 32-bit names of AdEMAMix build its general class at its default of 32 bits: bitsandbytes'
# `AdEMAMix32bit` and `PagedAdEMAMix32bit` lack the second half of the first buffer (0.50.2).
ROWS = {
    "adamw_8bit": Row(ADAMW, "AdamW8bit", 8),
    "adamw_bnb_8bit": Row(ADAMW, "AdamW8bit", 8, shares_state_with="adamw_8bit"),
    "paged_adamw_8bit": Row(ADAMW, "PagedAdamW8bit", 8, paged=True, shares_state_with="adamw_8bit"),
    "paged_adamw_32bit": Row(ADAMW, "PagedAdamW32bit", 32, paged=True),
    "ademamix": Row(ADEMAMIX, "AdEMAMix", 32),
    "ademamix_8bit": Row(ADEMAMIX, "AdEMAMix8bit", 8),
    "paged_ademamix_32bit": Row(
        ADEMAMIX, "PagedAdEMAMix", 32, paged=True, shares_state_with="ademamix"
    ),
    "paged_ademamix_8bit": Row(
        ADEMAMIX, "PagedAdEMAMix8bit", 8, paged=True, shares_state_with="ademamix_8bit"
    ),
    "lion_32bit": Row(LION, "Lion32bit", 32),
    "lion_8bit": Row(LION, "Lion8bit", 8),
    "paged_lion_32bit": Row(LION, "PagedLion32bit", 32, paged=True, shares_state_with="lion_32bit"),
    "paged_lion_8bit": Row(LION, "PagedLion8bit", 8, paged=True, shares_state_with="lion_8bit"),
    "rmsprop_bnb": Row(RMSPROP, "RMSprop", 32),
    "rmsprop_bnb_8bit": Row(RMSPROP, "RMSprop8bit", 8),
    "rmsprop_bnb_32bit": Row(RMSPROP, "RMSprop32bit", 32, shares_state_with="rmsprop_bnb"),
}


def keeps_32_bits(
    parameter: Tensor, min_8bit_size: int, *, is_embedding: bool, whole_blocks: bool = False
) -> bool:
    """Whether an 8-bit optimizer keeps 32-bit state for this parameter.

    Small parameters do by upstream's rule. By hub's so do embeddings and, with `whole_blocks`,
    parameters that do not fill a whole number of blocks: the CUDA kernel of AdEMAMix in
    bitsandbytes 0.50.2 writes two of their scales to one place, `absmax1[(n + i) / 256]`.
    """
    elements = parameter.numel()
    return elements < min_8bit_size or is_embedding or (whole_blocks and elements % BLOCK != 0)
