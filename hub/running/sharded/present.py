"""The parameters that a model has now, sharded ones as their DTensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hub.groups.modules import plain_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.nn import Module


def present_parameters(model: Module) -> dict[str, Tensor]:
    """Return a model's parameters by their plain names, tied ones under each of them.

    FSDP2 registers gathered tensors in the place of its parameters for as long as it needs them: in
    its root from the beginning of a forward pass to the end of the backward pass.
    """
    plain = plain_names(model)
    sharded = dict(_sharded_by_fsdp(model))
    return {
        plain(f"{prefix}.{name}" if prefix else name): sharded.get((module, name), parameter)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for name, parameter in module._parameters.items()  # noqa: SLF001 - named_parameters() is slower
        if parameter is not None
    }


def _sharded_by_fsdp(model: Module) -> Iterator[tuple[tuple[Module, str], Tensor]]:
    """Yield the module and name of each parameter that FSDP2 shards, with its DTensor."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")
    for module in model.modules() if fsdp else ():
        if not isinstance(module, fsdp.FSDPModule):
            continue
        # torch 2.13 has no public equivalent (`_fully_shard/_fsdp_state.py`, `_fsdp_param.py`).
        for group in module._get_fsdp_state()._fsdp_param_groups:  # noqa: SLF001
            for parameter in group.fsdp_params:
                info = parameter._module_info  # noqa: SLF001
                modules = (info.module, *info.shared_modules)
                names = (info.param_name, *info.shared_param_names)
                for place in zip(modules, names, strict=True):
                    yield place, parameter.sharded_param
