"""What the Schedule-Free names are and take. Imports neither torch nor schedulefree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator, model_validator

from hub import backend
from hub.arguments import Arguments, Beta, Eps, LearningRate, WeightDecay
from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from pydantic import BaseModel
    from torch.optim import Optimizer

    from hub.spec import BuildContext

PositiveBeta = Annotated[float, Field(gt=0, lt=1)]


class ScheduleFreeArguments(Arguments):
    """What all three take."""

    lr: LearningRate = 0.0025
    weight_decay: WeightDecay = 0.0
    """Decoupled weight decay coefficient, applied to the training weights (y)."""
    r: float = 0.0
    """Power of the step number in the weight that each step has in the average."""
    weight_lr_power: float = Field(default=2.0, ge=0)
    """Power of the largest learning rate so far in the weight that each step has in the average;
    0 weighs the steps of a warm-up like all others."""
    foreach: bool = True
    """Update all tensors of a group at once: faster, with one more temporary of their size."""


class WarmupArguments(ScheduleFreeArguments):
    """What the names with a warm-up of their own take."""

    warmup_steps: int = Field(default=0, ge=0)
    """Number of optimizer steps over which the learning rate rises linearly to `lr`."""

    @field_validator("warmup_steps", mode="before")
    @classmethod
    def _is_no_share(cls, value: object) -> object:
        # schedulefree 1.4.1 takes 0.1 and multiplies the first learning rate by 1 / 0.1.
        if isinstance(value, float) and value >= 1 and value.is_integer():
            return int(value)  # as TrainingArguments of Transformers types its warmup_steps
        if isinstance(value, float):
            message = (
                "a number of optimizer steps, such as 100, not a share of the training run: "
                f"multiply a share of {value} by the number of training steps, and round"
            )
            raise ValueError(message)  # noqa: TRY004 - pydantic passes a TypeError through
        return value


class AdamWArguments(WarmupArguments):
    """Arguments of `schedulefree.AdamWScheduleFree`."""

    betas: tuple[PositiveBeta, Beta] = (0.9, 0.999)
    """Share of the average in the training weights, and decay rate of the running average of the
    squared gradient. The first divides on the way to evaluation, so it cannot be 0."""
    eps: Eps = 1e-8


class RAdamArguments(ScheduleFreeArguments):
    """Arguments of `schedulefree.RAdamScheduleFree`."""

    betas: tuple[PositiveBeta, Beta] = (0.9, 0.999)
    """Share of the average in the training weights, and decay rate of the running average of the
    squared gradient. The first divides on the way to evaluation, so it cannot be 0."""
    eps: Eps = 1e-8
    silent_sgd_phase: bool = True
    """Move nothing in the first steps (4 at the default betas), until the variance of the second
    moment is tractable, instead of taking steps of plain SGD."""

    @model_validator(mode="after")
    def _leaves_the_silent_phase(self) -> Self:
        # The approximated length of the average tends to 2 / (1 - beta2) - 1 and must exceed 4.
        if self.silent_sgd_phase and 2 / (1 - self.betas[1]) <= 5:  # noqa: PLR2004
            message = (
                f"betas: a second value of {self.betas[1]} never ends the silent phase, so nothing "
                "would be trained; use one above 0.6 or silent_sgd_phase=False"
            )
            raise ValueError(message)
        return self


class SGDArguments(WarmupArguments):
    """Arguments of `schedulefree.SGDScheduleFree`."""

    lr: LearningRate = 1.0
    momentum: float = Field(default=0.9, gt=0, lt=1)
    """Share of the average in the training weights."""


def _averaging(rises: dict[str, object]) -> dict[str, tuple[Contrast, ...]]:
    """Return how `weight_lr_power` shows: at a constant learning rate all steps weigh the same."""
    return {"weight_lr_power": (Contrast(base=rises, other={**rises, "weight_lr_power": 0.5}),)}


_NOTES = (
    "A learning-rate schedule on top multiplies with its own annealing: use a constant one.",
    "Switches with model.train() and model.eval(): evaluation sees the averaged weights.",
    "State dicts of the model hold the averaged weights; the optimizer's has the others too.",
    "Starts in train mode; the bare class refuses its first step until `train()` was called.",
)


def _spec(
    name: str,
    summary: str,
    arguments: type[BaseModel],
    per_group: set[str],
    *modes: str,
    example_arguments: dict[str, object] | None = None,
) -> OptimizerSpec:
    return OptimizerSpec(
        name=name,
        summary=summary,
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER, Trait.TRAIN_EVAL_MODES, Trait.SCHEDULE_FREE}),
        step_counters=frozenset({"k", "lr_max", "scheduled_lr", "weight_sum"}),
        precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed", *modes}),
        per_group=frozenset({"lr", "weight_decay", *per_group}),
        example_arguments=example_arguments or {},
        contrasts=_averaging(
            {"warmup_steps": 4}
            if issubclass(arguments, WarmupArguments)
            else {"silent_sgd_phase": True}
        ),
        without_effect={"foreach": "chooses how the same update is computed"},
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
        "AdamW that averages its weights instead of following a schedule.",
        AdamWArguments,
        {"betas", "eps"},
    ),
    _spec(
        "schedule_free_radam",
        "RAdam that averages its weights: needs neither a schedule nor a warm-up.",
        RAdamArguments,
        {"betas", "eps"},
        example_arguments={"silent_sgd_phase": False},  # the first steps are to show something
    ),
    _spec(
        "schedule_free_sgd",
        "SGD with momentum that averages its weights instead of following a schedule.",
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
def hub_build_optimizer(
    name: str, optim_args: BaseModel, context: BuildContext
) -> Optimizer | None:
    """Build one of them, ready to train."""
    if name not in {spec.name for spec in SPECS}:
        return None
    factory = backend.load("hub_schedulefree.factory")
    optimizer: Optimizer = factory.build(name, context.param_groups(), optim_args.model_dump())
    return optimizer
