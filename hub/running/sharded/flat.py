"""Refuse optimizers that cannot train the flat pieces that FSDP1 and DeepSpeed make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.errors import UnsupportedError
from hub.groups.flat import fsdp1_flat_parameter, fsdp1_shapes, fsdp1_wraps, is_fsdp1_piece
from hub.groups.walk import walk_of
from hub.running.sharded.kinds import sharding_of
from hub.spec import Trait

if TYPE_CHECKING:
    from torch.nn import Module

    from hub.spec import OptimizerSpec


@dataclass(frozen=True)
class Flattener:
    """An engine that hands out flat pieces of parameters, and what does not work with it."""

    name: str
    in_backward: str
    """Why no update can be inside the backward pass."""
    evaluation: str
    """Why no weights can be switched for evaluation."""
    fix: str


FSDP1 = Flattener(
    "FSDP1",
    in_backward="FSDP1 reduces one flat gradient for several parameters, which get their parts "
    "after the backward pass, and the updates inside it would miss them",
    evaluation="FSDP1 gathers the weights before they are switched for evaluation",
    fix="shard with FSDP2 (torch.distributed.fsdp.fully_shard; fsdp_version: 2 in Accelerate), "
    "or use DDP, or an elementwise optimizer such as adamw_torch",
)
DEEPSPEED = Flattener(
    "DeepSpeed",
    in_backward="DeepSpeed collects the gradients itself, and the updates in the backward pass "
    "would miss them",
    evaluation="DeepSpeed trains its own copies of the weights, which are not switched for "
    "evaluation",
    fix="train without DeepSpeed, or use an elementwise optimizer such as adamw_torch",
)


def check_trains_pieces(spec: OptimizerSpec, by: Flattener, where: str) -> None:
    """Check that an optimizer trains flat pieces as it would the whole parameters.

    Raises:
        UnsupportedError: Its update of an element depends on other elements, it steps inside the
            backward pass, or it switches weights for evaluation.
    """
    reason = _why_not(spec, by)
    if reason:
        raise UnsupportedError(f"{spec.name}: {reason}", where=where, fix=by.fix)


def check_not_flattened(spec: OptimizerSpec, model: Module) -> None:
    """Check that FSDP1 does not shard a model, if the optimizer cannot train that.

    Raises:
        UnsupportedError: It does; or it has made one parameter of several (`use_orig_params=False`)
            with and without weight decay, which no optimizer can tell apart.
    """
    in_backward = Trait.STEPS_IN_BACKWARD in spec.traits  # gradients are flat with NO_SHARD too
    pieces = fsdp1_shapes(model)
    if pieces or (in_backward and fsdp1_wraps(model)):
        check_trains_pieces(spec, FSDP1, next(iter(pieces), "model"))
    flat = fsdp1_flat_parameter(model)
    if flat is not None:
        raise UnsupportedError(
            f"FSDP1 makes one parameter of several, which {spec.name} would train with one "
            "weight decay and one learning rate",
            where=flat,
            fix="pass use_orig_params=True to FullyShardedDataParallel",
        )


def check_not_inside_fsdp1(spec: OptimizerSpec, model: Module) -> None:
    """Check that FSDP1 does not wrap a model from outside, which hides the shapes of its pieces.

    Raises:
        UnsupportedError: It does.
    """
    if fsdp1_wraps(model):
        return
    for name, parameter in walk_of(model).parameters:
        if is_fsdp1_piece(parameter):
            check_trains_pieces(spec, FSDP1, name)
            raise UnsupportedError(
                "FSDP1 wraps the model from outside, and weight decay depends on the shapes that "
                "parameters had before",
                where=name,
                fix="pass what FullyShardedDataParallel returned, or build before it wraps the "
                "model",
            )


def _why_not(spec: OptimizerSpec, by: Flattener) -> str:
    sharding = sharding_of(spec)
    if Trait.STEPS_IN_BACKWARD in spec.traits:
        return by.in_backward
    if Trait.TRAIN_EVAL_MODES in spec.traits:
        return by.evaluation
    if Trait.LOW_RANK in spec.traits:
        return f"{by.name} trains flat pieces of the parameters, which have no matrices to project"
    if sharding is None or not sharding.elementwise:
        return (
            f"{by.name} trains flat pieces of the parameters, and the update of an element may "
            "depend on the whole parameter"
        )
    return ""
