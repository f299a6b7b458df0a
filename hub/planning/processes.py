"""Refuse optimizers that cannot train under several processes or DeepSpeed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch

from hub.groups.walk import walk_of
from hub.running.layerwise.wrappers import wrapped_before
from hub.running.sharded.flat import DEEPSPEED, check_trains_pieces
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.nn import Module, Parameter

    from hub.spec import OptimizerSpec


def check_unwrapped(spec: OptimizerSpec, model: Module) -> None:
    """Check that DDP keeps no gradients from an optimizer that steps inside the backward pass.

    DDP may wrap the model after the build. If it wraps the model from outside already, only the
    first forward pass can notice.

    Args:
        spec: The optimizer.
        model: The model.

    Raises:
        UnsupportedError: DDP wraps the model or a part of it.
    """
    if Trait.STEPS_IN_BACKWARD not in spec.traits:
        return
    for name, module in walk_of(model).modules:
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


def refuse_deepspeed(spec: OptimizerSpec, where: str) -> None:
    """Raise for an optimizer that cannot train under DeepSpeed, and let all others pass.

    DeepSpeed's engine (0.19) runs the backward pass itself, and gives optimizers flat pieces of the
    parameters, from the first ZeRO stage on and in half precision.

    Raises:
        UnsupportedError: It needs whole parameters, steps inside the backward pass, or switches
            weights for evaluation.
    """
    check_trains_pieces(spec, DEEPSPEED, where)


def _accelerate_runs_deepspeed() -> bool:
    """Whether Accelerate (1.15, `PartialState`) runs this process under DeepSpeed."""
    module = sys.modules.get("accelerate.state")
    shared = {} if module is None else module.PartialState._shared_state  # noqa: SLF001 - creates no state
    kind = shared.get("distributed_type")
    return getattr(kind, "value", None) == "DEEPSPEED"
