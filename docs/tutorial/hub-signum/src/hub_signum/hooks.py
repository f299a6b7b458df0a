"""What the name `signum` is and takes. Imports neither torch nor the optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

import hub

if TYPE_CHECKING:
    from torch.optim import Optimizer


class SignumArguments(BaseModel):
    """Arguments of Signum."""

    lr: float = Field(default=1e-4, ge=0, description="Length of every step, in each coordinate.")
    momentum: float = Field(
        default=0.9, ge=0, lt=1, description="Decay rate of the running average of the gradient."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")


@hub.hookimpl
def hub_register_optimizers() -> list[hub.OptimizerSpec]:
    """Offer Signum."""
    return [
        hub.OptimizerSpec(
            name="signum",
            summary="Steps of one length, along the sign of the averaged gradient.",
            arguments=SignumArguments,
            per_group=frozenset({"lr", "momentum", "weight_decay"}),
            package="hub-signum",
            license="Apache-2.0",
            paper="https://arxiv.org/abs/1802.04434",
            homepage="https://arxiv.org/abs/1802.04434",
        )
    ]


@hub.hookimpl
def hub_build_optimizer(optim_args: SignumArguments, context: hub.BuildContext) -> Optimizer:
    """Build it."""
    from hub_signum.signum import Signum

    return Signum(context.param_groups(), **optim_args.model_dump())
