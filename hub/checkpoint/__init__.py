"""Safe, portable state dicts: tensors and plain data that know which optimizer they belong to.

`record` is what a state dict says about the optimizer that wrote it, `alignment` finds its
parameters by name, and `layout` holds it to its form and shapes before anything changes. `loading`
puts all of it on an optimizer. `mending` is for plugins whose upstream class saves anything else.
"""

from hub.checkpoint.form import check_form
from hub.checkpoint.loading import attach
from hub.checkpoint.mending import (
    HookedLoading,
    keep_state_dtypes,
    row_major,
    translate_state,
    with_strides,
)
from hub.checkpoint.plain import KEY, Group, State, StateDict, is_plain
from hub.checkpoint.record import Record

__all__ = [
    "KEY",
    "Group",
    "HookedLoading",
    "Record",
    "State",
    "StateDict",
    "attach",
    "check_form",
    "is_plain",
    "keep_state_dtypes",
    "row_major",
    "translate_state",
    "with_strides",
]
