"""What the name `duo` is and takes."""

from typing import Annotated

from pydantic import BaseModel, Field

import hub

Beta = Annotated[float, Field(ge=0, lt=1)]


class DuoArguments(BaseModel):
    """Arguments of Duo."""

    lr: float = Field(default=0.02, ge=0, description="Learning rate of the target modules.")
    adamw_lr: float = Field(default=3e-3, ge=0, description="Learning rate of all the rest.")
    momentum: Beta = 0.95
    ns_steps: int = Field(default=3, ge=1)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)


@hub.hookimpl
def hub_register_optimizers():
    """Offer Duo."""
    return [
        hub.OptimizerSpec(
            name="duo",
            summary="Orthogonalized momentum for the target modules, and AdamW for the rest.",
            arguments=DuoArguments,
            traits=frozenset({hub.Trait.LOW_RANK, hub.Trait.PER_PARAMETER}),
            per_group=frozenset(DuoArguments.model_fields) - {"adamw_lr"},
            other_rates=frozenset({"adamw_lr"}),
            package="hub-duo",
        )
    ]


@hub.hookimpl
def hub_build_optimizer(optim_args, context):
    """Build it."""
    from hub_duo.duo import Duo

    groups = context.param_groups()
    for group in groups:
        lr = group.pop("lr", optim_args.lr)
        scale = lr / optim_args.lr if optim_args.lr else 1.0
        group["lr"] = lr if group.get("low_rank") else optim_args.adamw_lr * scale
    return Duo(groups, **optim_args.model_dump(exclude={"lr", "adamw_lr"}))
