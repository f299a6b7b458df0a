"""The arguments of `muon`. Does not import torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.arguments import Arguments, Search


class MuonArguments(Arguments):
    """Arguments of `torch.optim.Muon` (2.13), and of what hub adds to it."""

    lr: Annotated[float, Field(ge=0), Search(3e-4, 0.1)] = 1e-3
    """Learning rate, before `adjust_lr_fn`."""
    weight_decay: Annotated[float, Field(ge=0), Search(1e-3, 0.5)] = 0.1
    """Decoupled weight decay coefficient; times `lr` as it is, without `adjust_lr_fn`."""
    momentum: Annotated[float, Field(ge=0, lt=1), Search(0.85, 0.98, "linear")] = 0.95
    """Decay rate of the running average of the gradient."""
    nesterov: bool = True
    """Nesterov momentum."""
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315)
    """The polynomial of a Newton-Schulz step: the coefficients of X, of its cube and of its fifth
    power."""
    eps: float = Field(default=1e-7, gt=0)
    """The smallest norm that a matrix is divided by."""
    ns_steps: int = Field(default=5, gt=0, lt=100)
    """Number of Newton-Schulz steps."""
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None
    """How the shape of a matrix scales its learning rate. "original", or None: by
    sqrt(max(1, rows / columns)). "match_rms_adamw": by 0.2 * sqrt(max(rows, columns)), which makes
    updates as large as AdamW's."""
    blocks: dict[str, Annotated[int, Field(gt=0)]] | None = None
    """Patterns of weights, as in `param_rules`, and into how many rows to cut them, such as
    {"qkv_proj": 64}: each block of outputs, of a head for instance, is orthogonalized by itself.
    The first pattern that matches counts."""
    tokens_per_step: int | None = Field(default=None, gt=0)
    """Number of tokens in a step, over all processes. With it the plan notes what Newton-Schulz
    costs; it has no other effect."""
