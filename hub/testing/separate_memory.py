"""A host's memory that a CPU has too, to see that nobody reads state that is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hub.running.buckets.memory import as_bytes
from hub.running.steps import members_of

if TYPE_CHECKING:
    from torch import UntypedStorage
    from torch.optim import Optimizer

POISON = 0xFF
"""Floating-point numbers of such bytes are NaN."""


class SeparateMemory:
    """Keeps state in other storages than those it is used in, and poisons what is left behind."""

    def __init__(self) -> None:
        self.away: dict[int, UntypedStorage] = {}
        """All storages of the host, by identity."""
        self.allocated = 0
        """How often a storage of the host was allocated."""
        self.bytes_here = self.most_here = 0
        """Of the state that was put on the host and is on the device, now and at most."""

    def is_away(self, storage: UntypedStorage) -> bool:
        """Whether a storage is on the host."""
        return storage._cdata in self.away  # noqa: SLF001

    def bring(self, storage: UntypedStorage) -> UntypedStorage:
        """Copy it, and poison what is on the host."""
        self.bytes_here += storage.nbytes()
        self.most_here = max(self.most_here, self.bytes_here)
        return _moved(storage, _empty_like(storage))

    def put(self, storage: UntypedStorage, home: UntypedStorage | None) -> UntypedStorage:
        """Copy it, and poison what was on the device."""
        if home is None or not self.is_away(home):
            home = _empty_like(storage)
            self.away[home._cdata] = home  # noqa: SLF001
            self.allocated += 1
        else:
            self.bytes_here -= storage.nbytes()
        return _moved(storage, home)

    def mark(self) -> None:
        """Return nothing: whatever is brought is there at once."""

    def wait(self, _: object) -> None:
        """Wait for nothing."""

    def finish(self) -> None:
        """Nothing is ever on its way."""


def separate(optimizer: Optimizer) -> SeparateMemory:
    """Let an optimizer with `offload` keep its state in separate memory, and return that."""
    memory = SeparateMemory()
    for member in members_of(optimizer):
        host = member.hub_stepping.host
        host.memories = {p.device: memory for g in member.param_groups for p in g["params"]}
        host.store_all(member)
    return memory


def _moved(storage: UntypedStorage, to: UntypedStorage) -> UntypedStorage:
    as_bytes(to).copy_(as_bytes(storage))
    as_bytes(storage).fill_(POISON)
    return to


def _empty_like(storage: UntypedStorage) -> UntypedStorage:
    return torch.empty(storage.nbytes(), dtype=torch.uint8).untyped_storage()
