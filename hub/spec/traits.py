"""The properties of an optimizer that decide how hub builds and runs it."""

from __future__ import annotations

from enum import StrEnum


class Trait(StrEnum):
    """A property of an optimizer that decides how hub builds and runs it."""

    LOW_RANK = "low_rank"
    """Projects the gradients of selected linear layers: `target_modules` is required."""

    MATRICES_ONLY = "matrices_only"
    """Trains only matrices: the weights of target modules, and stacks of such weights. Everything
    else is trained by its `rest`."""

    ORTHOGONAL = "orthogonal"
    """Its updates of matrices are nearly orthogonal: all their singular values are about the
    same."""

    PER_PARAMETER = "per_parameter"
    """Updates each parameter independently of the others, so it has a layerwise form."""

    STEPS_IN_BACKWARD = "steps_in_backward"
    """Updates each parameter during the backward pass and frees its gradient ("gradient release");
    see `hub.running`."""

    COMPENSATED = "compensated"
    """Does not round away small updates of bf16 and fp16 parameters."""

    TRAIN_EVAL_MODES = "train_eval_modes"
    """Has separate weights for evaluation, and `train()` and `eval()`; see `hub.running`."""

    SCHEDULE_FREE = "schedule_free"
    """Anneals by averaging: a decaying learning-rate schedule on top is a mistake."""
