"""Copies of an optimizer, which would not keep what hub promises of the original.

torch (2.13, `Optimizer.__getstate__`) copies groups and state and drops all hooks: a copy would not
clip, not switch to its evaluation weights, not step inside the backward pass, and would save what
its package's class saves.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from torch.optim import Optimizer

_METHODS = ("__deepcopy__", "__reduce_ex__")
"""What `copy.deepcopy`, and what `copy.copy` and pickle look for, on the instance too."""


def refuse_copies(optimizer: Optimizer, name: str) -> None:
    """Have an optimizer refuse to be copied or pickled: its instance does, not its class."""
    vars(optimizer).update(dict.fromkeys(_METHODS, partial(_refuse, name)))


def allow_copies(optimizer: Optimizer) -> None:
    """Let copies be made as the optimizer's class makes them."""
    for method in _METHODS:
        vars(optimizer).pop(method, None)


def _refuse(name: str, *_: object) -> NoReturn:
    raise UnsupportedError(
        f"a copy of {name} would lose what hub.build added to it: clipping, evaluation weights, "
        "checked and portable state dicts",
        where="copy or pickle of the optimizer",
        fix="build it again for the copied model, and load_state_dict(optimizer.state_dict()); "
        "or hub.detach(optimizer) first, and copy the package's own class",
    )
