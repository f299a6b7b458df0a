"""How an optimizer steps parameters that are sharded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["native", "rows", "whole"]
"""How a sharded parameter is stepped, see `Sharding`."""


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How an optimizer steps parameters that FSDP2 shards by rows (DTensors).

    The default is right for every optimizer with `Trait.PER_PARAMETER`, and moves the most bytes:
    one rank steps the whole parameter.
    """

    kind: Kind = "whole"
    """"native": its operations compute the same with DTensors. "rows": each rank steps its own
    rows. "whole": one rank steps all rows. hub chooses "whole" where `block` or `quantized_from`
    do not allow "rows"."""
    elementwise: bool = False
    """Whether an element's update depends on no other element, so that it also trains the flat
    shards of FSDP1, and large weights with `rounding` in pieces."""
    block: int | str = 1
    """For "rows": of how many elements each block of quantized state is, as a number or as the
    argument that has it. Rows of whole blocks are quantized like the whole parameter."""
    quantized_from: int | str = 0
    """For "rows": the size from which a parameter's state is quantized, likewise."""
    unsplit: frozenset[str] = frozenset()
    """For "rows": the keys of state tensors that all rows share, such as quantization maps."""
    whole_with: str = ""
    """For "rows": the argument with which hub chooses "whole", because the ranks' rows would get
    other random numbers than all rows together."""
