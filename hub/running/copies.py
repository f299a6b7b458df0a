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


def refuse_copies(optimizer: Optimizer, name: str, *, for_good: bool = False) -> None:
    """Make this optimizer, not its class, refuse to be copied or pickled.

    Args:
        optimizer: The optimizer.
        name: Its name, for messages.
        for_good: Whether also after `hub.detach`, as hub goes on to step it.
    """
    vars(optimizer).update(dict.fromkeys(_METHODS, partial(_refuse, name, for_good)))


def allow_copies(optimizer: Optimizer) -> None:
    """Allow copying and pickling again, as the optimizer's class does them, if that can be."""
    for method in _METHODS:
        refusal = vars(optimizer).get(method)
        if refusal is not None and not refusal.args[1]:
            del vars(optimizer)[method]


def _refuse(name: str, for_good: bool, *_: object) -> NoReturn:
    fix = (
        "build a new one for the copied model and call load_state_dict(optimizer.state_dict()) on "
        "it"
    )
    raise UnsupportedError(
        f"a copy of {name} would lose what hub.build added to it: clipping, evaluation weights, "
        "rounding, offloading, checked and portable state dicts",
        where="copy or pickle of the optimizer",
        fix=fix
        if for_good
        else f"{fix}; or call hub.detach(optimizer) first and copy the upstream optimizer",
    )
