"""The Schedule-Free optimizers. Imports neither torch nor schedulefree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Sharding, Trait
from hub.updates.compiling import compiles
from hub_schedulefree.arguments import (
    AdamWArguments,
    RAdamArguments,
    ScheduleFreeArguments,
    SGDArguments,
    WarmupArguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from hub.spec import BuildContext, Finding

_NOTES = (
    "A decaying learning-rate schedule would anneal a second time: use a constant one.",
    "Switches with model.train() and model.eval(): evaluation uses the averaged weights.",
    "State dicts of the model hold the averaged weights; the optimizer's has the others too.",
    "Starts in train mode; the upstream class refuses to step until `train()` was called.",
)


def _spec(
    name: str,
    summary: str,
    factory: str,
    arguments: type[ScheduleFreeArguments],
    per_group: set[str],
    *modes: str,
    example_arguments: dict[str, object] | None = None,
) -> OptimizerSpec:
    has_warmup = issubclass(arguments, WarmupArguments)
    rises = {"warmup_steps": 4} if has_warmup else {"silent_sgd_phase": True}
    return OptimizerSpec(
        name=name,
        summary=summary,
        factory=f"hub_schedulefree.factory:{factory}",
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER, Trait.TRAIN_EVAL_MODES, Trait.SCHEDULE_FREE}),
        sharding=Sharding(kind="native"),
        step_counters=frozenset({"k", "lr_max", "scheduled_lr", "weight_sum"}),
        precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed", *modes}),
        per_group=frozenset({"lr", "weight_decay", *per_group}),
        example_arguments=example_arguments or {},
        # At a constant learning rate all steps weigh the same.
        contrasts={
            "weight_lr_power": (Contrast(base=rises, other={**rises, "weight_lr_power": 0.5}),)
        },
        without_effect=dict.fromkeys(
            {"foreach", "compile"} & set(arguments.model_fields),
            "chooses how the same update is computed",
        ),
        known_failures={
            "leaves_gradients": "step() uses the gradients as scratch space: read norms before it"
        },
        package="schedulefree",
        license="Apache-2.0",
        paper="https://arxiv.org/abs/2405.15682",
        homepage="https://github.com/facebookresearch/schedule_free",
        notes=_NOTES,
    )


SPECS = (
    _spec(
        "schedule_free_adamw",
        "AdamW that averages weights, with no decay schedule",
        "adamw",
        AdamWArguments,
        {"betas", "eps"},
    ),
    _spec(
        "schedule_free_radam",
        "RAdam that averages weights: no schedule or warm-up",
        "radam",
        RAdamArguments,
        {"betas", "eps"},
        example_arguments={"silent_sgd_phase": False},  # so that the first steps train
    ),
    _spec(
        "schedule_free_sgd",
        "SGD that averages weights, with no decay schedule",
        "sgd",
        SGDArguments,
        {"momentum"},
        "fp16",
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer the three Schedule-Free optimizers."""
    return SPECS


@hookimpl
def hub_validate_precision(
    name: str, optim_args: BaseModel, context: BuildContext
) -> list[Finding]:
    """Say what a compiled update costs, and where it does not work."""
    return list(compiles(name, optim_args, context))
