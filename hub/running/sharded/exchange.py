"""Send tensors from every rank to every other one, in a single collective."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.distributed import ProcessGroup, Work

_ALIGNED = 16
"""Every tensor of a message begins at a multiple of this many bytes, as views of it have to."""


@dataclass(frozen=True, slots=True)
class Form:
    """The shape and dtype of a tensor that is still on its way."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """The bytes of its elements."""
        return prod(self.shape) * self.dtype.itemsize

    @staticmethod
    def of(tensor: Tensor) -> Form:
        """Return the form of a tensor."""
        return Form(tuple(tensor.shape), tensor.dtype)


@dataclass
class Arrival:
    """Tensors on their way."""

    work: Work | None
    received: Tensor
    sent: Tensor
    """Kept until they have arrived."""
    expected: Sequence[Sequence[Form]]

    def wait(self) -> list[list[Tensor]]:
        """Return the tensors from each rank, in the order in which that rank sent them."""
        if self.work is not None:
            self.work.wait()
        place = 0
        found: list[list[Tensor]] = []
        for forms in self.expected:
            found.append([])
            for form in forms:
                piece = self.received[place : place + form.nbytes]
                found[-1].append(piece.view(form.dtype).view(form.shape))
                place += _padded(form.nbytes)
        return found


class Exchange:
    """Messages among the ranks of a process group, as one all-to-all each.

    Every rank has to make the same calls in the same order.

    Args:
        group: The process group.
        device: The device of all tensors.
    """

    def __init__(self, group: ProcessGroup, device: torch.device) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.ranks = dist.get_world_size(group)
        self._device = device

    def start(
        self, messages: Sequence[Sequence[Tensor]], expected: Sequence[Sequence[Form]]
    ) -> Arrival:
        """Start to send tensors, and return what will hold those that arrive.

        Args:
            messages: The tensors for each rank; they may change once this has returned.
            expected: The forms of the tensors that each rank sends here.
        """
        sizes = [sum(_padded(tensor.nbytes) for tensor in message) for message in messages]
        sent = self._empty(sum(sizes))
        place = 0
        for message in messages:
            for tensor in message:
                piece = sent[place : place + tensor.nbytes]
                piece.view(tensor.dtype).view(tensor.shape).copy_(tensor)
                place += _padded(tensor.nbytes)
        arriving = [sum(_padded(form.nbytes) for form in forms) for forms in expected]
        received = self._empty(sum(arriving))
        work = dist.all_to_all_single(
            received, sent, arriving, sizes, group=self.group, async_op=True
        )
        return Arrival(work, received, sent, expected)

    def gather(self, value: object) -> list[object]:
        """Return the values of all ranks, which have to be small and picklable."""
        values: list[object] = [None] * self.ranks
        dist.all_gather_object(values, value, group=self.group)
        return values

    def _empty(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self._device)


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
