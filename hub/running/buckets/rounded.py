"""Step fp32 copies of bf16 and fp16 weights, and round them into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.running.buckets.pieces import can_be_cut, in_pieces
from hub.running.buckets.rounding import ROUNDED, put_bits, take_bits
from hub.running.buckets.sizes import copied_at_once, in_buckets, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    from hub.running.buckets.rounding import Rounding
    from hub.running.buckets.space import Space
    from hub.running.stand_ins import StandIn, StandInStep


class RoundedStep:
    """Steps parameters as fp32 copies; has the `run` of a `StandInStep`.

    Args:
        stand_ins: Runs the step of the optimizer's class.
        rounding: Makes the copies, and rounds them.
        space: Where the copies are.
        together: Whether all parameters have to be stepped at once.
        elementwise: Whether the class updates each element alone, so that large parameters can be
            stepped in pieces.
    """

    def __init__(
        self,
        stand_ins: StandInStep,
        rounding: Rounding,
        space: Space,
        *,
        together: bool,
        elementwise: bool,
    ) -> None:
        self._stand_ins, self._rounding, self._space = stand_ins, rounding, space
        self._together, self._elementwise = together, elementwise

    def run(self, optimizer: Optimizer, items: Sequence[StandIn]) -> None:
        """Step these parameters; those of one group in its order."""
        if self._together:
            self._step(optimizer, items)
            return
        most = copied_at_once(items)
        for bucket in in_buckets(items, most):
            if self._elementwise and can_be_cut(optimizer, bucket[0], most):
                in_pieces(optimizer, bucket[0], most, self._step)
            else:
                self._step(optimizer, bucket)

    def end(self, optimizer: Optimizer) -> None:
        """Count the step, if the random bits depend on it."""
        self._rounding.count(optimizer)

    def _step(self, optimizer: Optimizer, items: Sequence[StandIn]) -> None:
        rounded = [item for item in items if item.tensor.dtype in ROUNDED and steps(item)]
        bits = {item.parameter: take_bits(optimizer, item.parameter) for item in rounded}
        try:
            batches = self._rounding.copied(rounded, bits)
            copies = {copy.parameter: copy for batch in batches for copy in batch.copies}
            self._stand_ins.run(optimizer, [copies.get(item.parameter, item) for item in items])
            for batch in batches:
                kept = self._rounding.round(batch)
                if kept is not None:
                    names = [item.parameter for item in batch.items]
                    bits.update(zip(names, kept, strict=True))
        finally:
            for parameter, own in bits.items():
                put_bits(optimizer, parameter, own)
