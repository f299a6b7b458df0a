"""The original shapes of parameters that FSDP1 and DeepSpeed hold as flat pieces."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hub.groups.walk import walk_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.nn import Module

    Shape = tuple[int, ...]


def original_shapes(model: Module) -> dict[int, Shape]:
    """Return the whole shape of each parameter that is now a flat piece, by its identity."""
    walk = walk_of(model)
    if "original shapes" not in walk.remembered:
        flattened, named = fsdp1_shapes(model), walk.parameters
        found = {id(p): tuple(p.ds_shape) for _, p in named if hasattr(p, "ds_shape")}
        if flattened:
            found |= {id(p): flattened[name] for name, p in named if name in flattened}
        walk.remembered["original shapes"] = found
    shapes: dict[int, Shape] = walk.remembered["original shapes"]
    return shapes


def fsdp1_shapes(model: Module) -> dict[str, Shape]:
    """Return the whole shape of each parameter that FSDP1 shards, by its plain name.

    Empty if `FullyShardedDataParallel` wraps no part of the model, or shards nothing (`NO_SHARD`,
    and one process).
    """
    plain = walk_of(model).plain
    return {
        plain(f"{prefix}.{name}" if prefix else name): tuple(shape)
        for prefix, handle in _handles(model)
        if handle.uses_sharded_strategy
        for name, shape in zip(handle.flat_param._fqns, handle.flat_param._shapes, strict=True)  # noqa: SLF001
    }


def is_fsdp1_piece(parameter: object) -> bool:
    """Whether FSDP1 (torch 2.13, `_flat_param.py`) holds a flat piece in this parameter."""
    return bool(getattr(parameter, "_fsdp_flattened", False))


def fsdp1_wraps(model: Module) -> bool:
    """Whether FSDP1 wraps some part of the model, sharded or not."""
    return next(_handles(model), None) is not None


def fsdp1_flat_parameter(model: Module) -> str | None:
    """Return the name of a parameter that FSDP1 (`use_orig_params=False`) makes of several."""
    # Registered on the module inside the wrapper (torch 2.13, `_register_flat_param`).
    named = walk_of(model).parameters
    return next((name for name, p in named if getattr(p, "_is_flat_param", False)), None)


def is_flattened(model: Module) -> bool:
    """Whether some parameters of the model are flat pieces."""
    return bool(original_shapes(model)) or fsdp1_flat_parameter(model) is not None


def _handles(model: Module) -> Iterator[tuple[str, Any]]:
    """Yield the handle of each module that FSDP1 wraps, with the module's name (torch 2.13)."""
    module = sys.modules.get("torch.distributed.fsdp.fully_sharded_data_parallel")
    walk = walk_of(model)
    if module is None or not walk.has(module.FullyShardedDataParallel):
        return
    for name, wrapped in walk.modules:
        if isinstance(wrapped, module.FullyShardedDataParallel) and wrapped._handle is not None:  # noqa: SLF001
            yield name, wrapped._handle  # noqa: SLF001
