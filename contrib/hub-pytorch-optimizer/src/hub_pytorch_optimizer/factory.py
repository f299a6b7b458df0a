"""The classes of pytorch_optimizer 4.1.0, made so that they can be copied and pickled."""

from __future__ import annotations

from typing import Any

import pytorch_optimizer
import torch
from torch.optim import Optimizer

_TORCHS = frozenset(vars(torch.optim.SGD([torch.zeros(1)])))
"""The attributes of every optimizer: hooks, which no copy keeps, and what torch copies."""


class Copied(Optimizer):
    """Keeps in copies what torch's `Optimizer.__getstate__` leaves out.

    That is the attributes in which the classes keep arguments, such as `maximize`: a copy would
    fail in its first step. It comes first among the bases, because hub's subclasses derive from
    `Optimizer` first, and Python then lets an instance change its class; upstream's `BaseOptimizer`
    derives from `ABC` first.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Return torch's state and all other attributes, but for hub's and replaced methods."""
        own = {
            key: value
            for key, value in vars(self).items()
            if key not in _TORCHS and not key.startswith("hub") and not hasattr(type(self), key)
        }
        return own | super().__getstate__()


def __getattr__(name: str) -> type[Optimizer]:
    """Make the subclass of upstream's class of this name; pickles find it here too."""
    cls = getattr(pytorch_optimizer, name, None)
    if not isinstance(cls, type):
        raise AttributeError(name)  # noqa: TRY004 - as modules raise it
    made = type(name, (Copied, cls), {"__module__": __name__, "__doc__": cls.__doc__})
    globals()[name] = made
    return made
