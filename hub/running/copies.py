"""Refuse to copy an optimizer, because a copy would lose what hub added to it.

torch (2.13, `Optimizer.__getstate__`) copies groups and state and drops all hooks: a copy would not
clip, switch to its evaluation weights or step inside the backward pass, and its state dicts would
be those of the upstream class.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from torch.optim import Optimizer

_METHODS = ("__deepcopy__", "__reduce_ex__")
"""What `copy.deepcopy` looks up, and what `copy.copy` and pickle do, on the instance too."""


def refuse_copies(optimizer: Optimizer, name: str) -> None:
    """Make this optimizer, not its class, refuse to be copied or pickled."""
    vars(optimizer).update(dict.fromkeys(_METHODS, partial(_refuse, name)))


def allow_copies(optimizer: Optimizer) -> None:
    """Allow copying and pickling again, as the optimizer's class does them."""
    for method in _METHODS:
        vars(optimizer).pop(method, None)


def _refuse(name: str, *_: object) -> NoReturn:
    raise UnsupportedError(
        f"a copy of {name} would lose what hub.build added to it: clipping, evaluation weights, "
        "checked and portable state dicts",
        where="copy or pickle of the optimizer",
        fix="build a new one for the copied model and call load_state_dict(optimizer.state_dict()) "
        "on it; or call hub.detach(optimizer) first and copy the upstream optimizer",
    )
