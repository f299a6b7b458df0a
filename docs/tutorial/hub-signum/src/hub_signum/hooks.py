"""What the name `signum` is and takes. Imports neither torch nor the optimizer."""

from pydantic import BaseModel, Field

import hub


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
            factory="hub_signum.signum:Signum",
            traits=frozenset({hub.Trait.PER_PARAMETER}),
            per_group=frozenset({"lr", "momentum", "weight_decay"}),
            package="hub-signum",
            license="Apache-2.0",
            paper="https://arxiv.org/abs/1802.04434",
            homepage="https://arxiv.org/abs/1802.04434",
        )
    ]
