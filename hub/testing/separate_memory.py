"""A host's memory that a CPU has too, to see that nobody reads state that is elsewhere."""

from __future__ import annotations

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

    What moves leaves poison behind. From the first move of a step until the step ends, there is
    poison on the host too, and what was there is nowhere to be found.
    """

    def __init__(self) -> None:
        self.allocated = 0
        """How often a storage of the host was allocated."""
        self.here = self.most_here = 0
        """Bytes of state on the device, now and at most, but for what steps made."""
        self._away: dict[int, UntypedStorage] = {}
        """All storages of the host, by identity."""
        self._hidden: dict[int, Tensor] = {}
        """What is in them, while they are poisoned."""

    def is_away(self, storage: UntypedStorage) -> bool:
        """Whether a storage is on the host."""
        return storage._cdata in self._away  # noqa: SLF001

    def bring(self, storage: UntypedStorage) -> UntypedStorage:
        """Copy it from where it is hidden."""
        for key, each in self._away.items():
            if key not in self._hidden:
                self._hidden[key] = as_bytes(each).clone()
                as_bytes(each).fill_(POISON)
        self.here += storage.nbytes()
        self.most_here = max(self.most_here, self.here)
        copy = self._hidden[storage._cdata].clone()  # noqa: SLF001
        return copy.untyped_storage()

    def put(self, storage: UntypedStorage, home: UntypedStorage | None) -> UntypedStorage:
        """Hide it, and poison what was on the device."""
        if home is None or not self.is_away(home):
            home = torch.empty(storage.nbytes(), dtype=torch.uint8).untyped_storage()
            self._away[home._cdata] = home  # noqa: SLF001
            self.allocated += 1
        else:
            self.here -= storage.nbytes()
        self._hidden[home._cdata] = as_bytes(storage).clone()  # noqa: SLF001
        as_bytes(storage).fill_(POISON)
        return home

    def mark(self) -> None:
        """Return nothing: whatever is brought is there at once."""

    def wait(self, _: object) -> None:
        """Wait for nothing."""

    def finish(self) -> None:
        """Show everything again."""
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
