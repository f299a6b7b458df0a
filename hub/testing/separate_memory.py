"""A host's memory that a CPU has too, to see that nobody reads state that is elsewhere."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch

from hub.running.buckets.memory import as_bytes
from hub.running.steps import members_of

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage
    from torch.optim import Optimizer

POISON = 0xFF
"""Floating-point numbers of such bytes are NaN."""


class SeparateMemory:
    """Keeps state in other storages than those it is used in, and poisons all others.

    What moves leaves poison behind, and nothing arrives before it is waited for. From the first
    move of a step until the step ends, there is poison on the host too, and what was there is
    nowhere to be found.
    """

    def __init__(self) -> None:
        self.allocated = 0
        """How often a storage of the host was allocated."""
        self.here = self.most_here = 0
        """Bytes of state on the device, now and at most, until it is known that they have left, but
        for what steps made."""
        self._away: dict[int, UntypedStorage] = {}
        """All storages of the host, by identity."""
        self._hidden: dict[int, Tensor] = {}
        """What is in them, while they are poisoned."""
        self._coming: deque[tuple[UntypedStorage, Tensor]] = deque()
        """Storages of the device, and what arrives there."""
        self._brought = 0
        """How many storages have ever been brought."""
        self._leaving: deque[int] = deque()
        """The bytes of each storage that leaves."""
        self._sent = 0
        """How many storages have ever been sent back."""

    def is_away(self, storage: UntypedStorage) -> bool:
        """Whether a storage is on the host."""
        return storage._cdata in self._away  # noqa: SLF001

    def bring(self, storage: UntypedStorage) -> UntypedStorage:
        """Return poison, to be replaced by what is hidden."""
        for key, each in self._away.items():
            if key not in self._hidden:
                self._hidden[key] = as_bytes(each).clone()
                as_bytes(each).fill_(POISON)
        self.here += storage.nbytes()
        self.most_here = max(self.most_here, self.here)
        content = self._hidden[storage._cdata].clone()  # noqa: SLF001
        here = torch.full_like(content, POISON).untyped_storage()
        self._coming.append((here, content))
        self._brought += 1
        return here

    def put(self, storage: UntypedStorage, home: UntypedStorage | None) -> UntypedStorage:
        """Hide it, and poison what was on the device."""
        if home is None or not self.is_away(home):
            home = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cpu").untyped_storage()
            self._away[home._cdata] = home  # noqa: SLF001
            self.allocated += 1
        else:
            self._leaving.append(storage.nbytes())
            self._sent += 1
        self._hidden[home._cdata] = as_bytes(storage).clone()  # noqa: SLF001
        as_bytes(storage).fill_(POISON)
        return home

    def mark(self) -> int:
        """Return how many have been brought."""
        return self._brought

    def wait(self, mark: int) -> None:
        """Let so many arrive."""
        while self._brought - len(self._coming) < mark:
            here, content = self._coming.popleft()
            as_bytes(here).copy_(content)

    def departure(self) -> int:
        """Return how many have been sent back."""
        return self._sent

    def await_departure(self, departure: int) -> None:
        """Free the memory of so many."""
        while self._sent - len(self._leaving) < departure:
            self.here -= self._leaving.popleft()

    def finish(self) -> None:
        """Let everything arrive, and show everything again."""
        self.wait(self._brought)
        self.await_departure(self._sent)
        while self._hidden:
            key, content = self._hidden.popitem()
            as_bytes(self._away[key]).copy_(content)


def keep_apart(optimizer: Optimizer) -> None:
    """Let an optimizer with `offload` keep the state of parameters on a CPU in separate memory."""
    memory = SeparateMemory()
    for member in members_of(optimizer):
        host = member.hub_stepping.host
        cpu = {p.device for g in member.param_groups for p in g["params"] if p.device.type == "cpu"}
        host.memories = dict.fromkeys(cpu, memory)
        host.store_all(member)
