"""The arguments that `stable_adamw` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from hub.arguments import AdamLike, Betas, Eps

if TYPE_CHECKING:
    from typing import Self


class StableAdamWArguments(AdamLike):
    """Arguments of `optimi.StableAdamW`."""

    betas: Betas = (0.9, 0.99)
    eps: Eps = 1e-6
    decouple_lr: bool = False
    """Shrink the weights by weight_decay times the relative learning rate, lr / max_lr, instead of
    weight_decay times lr: it then needs values about lr times as large."""
    max_lr: float | None = Field(default=None, gt=0)
    """Maximum learning rate of the schedule, for decouple_lr; None: lr. A group whose lr is a
    multiple of lr has the same multiple of this."""
    kahan_sum: bool | None = None
    """Keep what rounding takes from the updates of bf16 weights, in another tensor of their size;
    None: wherever weights are bf16."""
    foreach: bool | None = None
    """Update small tensors of one shape together; deprecated upstream. None: where triton cannot be
    used. False: one tensor at a time."""
    triton: bool | None = None
    """Use triton kernels; None: unless foreach is given, for groups whose tensors are all on GPUs
    with bf16."""

    @model_validator(mode="after")
    def _has_one_implementation(self) -> Self:
        if self.foreach and self.triton:
            raise ValueError("foreach=True cannot go with triton=True; leave one of them out")
        return self

    @model_validator(mode="after")
    def _decouples_from_a_learning_rate(self) -> Self:
        if self.max_lr is not None and not self.decouple_lr:
            raise ValueError("max_lr does nothing without decouple_lr=True; pass both or neither")
        if self.decouple_lr and self.max_lr is None and self.lr == 0:
            raise ValueError(
                "decouple_lr=True divides by max_lr, by default lr, which is 0; pass max_lr"
            )
        return self
