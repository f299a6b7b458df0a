"""The spec of an optimizer with what hub adds to it: the arguments that every optimizer takes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hub.spec import OptimizerSpec


def whole_spec(spec: OptimizerSpec) -> OptimizerSpec:
    """Return a plugin's spec, with `hub.arguments.LowMemory` added to its arguments.

    A plugin may have made its spec from that of an optimizer that hub describes.
    """
    if spec.own_arguments is not None:
        return spec
    return replace(
        spec,
        arguments=_with_low_memory(spec.arguments),
        own_arguments=spec.arguments,
        state_arguments=spec.state_arguments | {"rounding"},
    )


@cache
def _with_low_memory(own: type[BaseModel]) -> type[BaseModel]:
    from hub.arguments import LowMemory

    return type(own.__name__, (LowMemory, own), {"__doc__": own.__doc__})
