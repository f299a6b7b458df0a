"""Refuse optimizers that cannot train under several processes, sharding or DeepSpeed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch

from hub.errors import UnsupportedError
from hub.running.layerwise.wrappers import check_not_flat, wrapped_before
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.nn import Module, Parameter

    from hub.spec import OptimizerSpec

_REASONS = {
    Trait.STEPS_IN_BACKWARD: "DeepSpeed collects the gradients itself, and the updates in the "
    "backward pass would miss them",
    Trait.LOW_RANK: "DeepSpeed trains flat pieces of the parameters, which have no matrices to "
    "project",
}


def check_unwrapped(
    spec: OptimizerSpec, model: Module, named: Iterable[tuple[str, Parameter]]
) -> None:
    """Check that no wrapper keeps gradients from an optimizer that steps in the backward pass.

    DDP may wrap the model after the build. If it wraps the model from outside already, only the
    first forward pass can notice.

    Args:
        spec: The optimizer.
        model: The model.
        named: Names and parameters.

    Raises:
        UnsupportedError: DDP wraps a part of the model, or FSDP1 has flattened its parameters.
    """
    if Trait.STEPS_IN_BACKWARD not in spec.traits:
        return
    check_not_flat(spec.name, named)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.parallel.DistributedDataParallel):
            raise wrapped_before(spec.name, where=name or "model")


def check_unpartitioned(spec: OptimizerSpec, named: Iterable[tuple[str, Parameter]]) -> None:
    """Check that DeepSpeed does not run the training, if the optimizer cannot train under it.

    DeepSpeed marks the parameters that ZeRO's third stage partitions; Accelerate knows of every
    stage, once an `Accelerator` exists.

    Args:
        spec: The optimizer.
        named: Names and parameters.

    Raises:
        UnsupportedError: It does; the error says why the optimizer cannot train.
    """
    mark = next((name for name, parameter in named if hasattr(parameter, "ds_id")), None)
    if mark is not None or _accelerate_runs_deepspeed():
        refuse_deepspeed(spec, where=mark or spec.name)


def check_unsharded(spec: OptimizerSpec, named: Iterable[tuple[str, Parameter]]) -> None:
    """Check that no parameter is a DTensor, if the optimizer cannot train those.

    Args:
        spec: The optimizer.
        named: Names and parameters.

    Raises:
        UnsupportedError: One is; the error names it.
    """
    sharded = next((name for name, p in named if hasattr(p, "device_mesh")), None)
    if spec.why_not_sharded and sharded is not None:
        raise UnsupportedError(
            f"{spec.name} cannot train parameters sharded by FSDP2 or tensor parallelism: "
            f"{spec.why_not_sharded}",
            where=sharded,
            fix="use DDP, or another optimizer, such as adamw_torch",
        )


def refuse_deepspeed(spec: OptimizerSpec, where: str) -> None:
    """Raise for an optimizer that cannot train under DeepSpeed, and let all others pass.

    DeepSpeed's engine (0.19) runs the backward pass itself, and gives optimizers flat pieces of the
    parameters, from the first ZeRO stage on and in half precision.

    Raises:
        UnsupportedError: It projects matrices, or steps inside the backward pass.
    """
    for trait, reason in _REASONS.items():
        if trait in spec.traits:
            raise UnsupportedError(
                f"{spec.name}: {reason}",
                where=where,
                fix="train without DeepSpeed, or choose another optimizer, such as adamw_8bit",
            )


def _accelerate_runs_deepspeed() -> bool:
    """Whether Accelerate (1.15, `PartialState`) runs this process under DeepSpeed."""
    module = sys.modules.get("accelerate.state")
    shared = {} if module is None else module.PartialState._shared_state  # noqa: SLF001 - creates no state
    kind = shared.get("distributed_type")
    return getattr(kind, "value", None) == "DEEPSPEED"
