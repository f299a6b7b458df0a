"""A copy of a model's modules around other tensors."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.nn import Module


def with_tensors(model: Module, tensors: Mapping[int, Tensor]) -> Module:
    """Return modules like those of a model, with other parameters and buffers, and without hooks.

    They are for looking at, not for running: all other attributes are the model's own. Unlike
    `copy.deepcopy`, this copies models that FSDP1 or FSDP2 shards (they hold process groups), and
    what a model may hold that cannot be copied, such as an optimizer.

    Args:
        model: The model; scripted modules are shared, not copied.
        tensors: The tensor in place of each parameter and buffer, by the identity of these.
    """
    copies: dict[int, Module] = {
        id(module): module
        if isinstance(module, torch.jit.ScriptModule)
        else object.__new__(type(module))
        for module in model.modules()
    }
    for module in model.modules():
        if copies[id(module)] is not module:
            vars(copies[id(module)]).update(_attributes(module, copies, tensors))
    return copies[id(model)]


def _attributes(
    module: Module, copies: Mapping[int, Module], tensors: Mapping[int, Tensor]
) -> dict[str, Any]:
    own: dict[str, Any] = vars(module)
    return {
        **own,
        **{
            key: type(own[key])() for key in own if _holds_hooks(key) and isinstance(own[key], dict)
        },
        "_modules": {name: copies.get(id(m)) for name, m in own["_modules"].items()},
        "_parameters": {name: tensors.get(id(p)) for name, p in own["_parameters"].items()},
        "_buffers": {name: tensors.get(id(b)) for name, b in own["_buffers"].items()},
    }


@cache
def _holds_hooks(key: str) -> bool:
    return key.startswith("_") and "_hooks" in key
