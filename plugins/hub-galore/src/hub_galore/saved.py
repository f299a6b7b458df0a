"""What checkpoints of the GaLore names hold, and what those of galore_torch's classes hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from galore_torch.galore_projector import GaLoreProjector

from hub.repairs import row_major, with_strides

if TYPE_CHECKING:
    from torch import Tensor

    Group = dict[str, Any]
    State = dict[str, Any]

_BY_COLUMNS = "projector_by_columns"
"""The key of a saved state that says whether its basis was in column order."""


def plain_state(state: State, _: Group) -> State:
    """Return one parameter's state with its basis by rows, and not as upstream's object.

    `projector_by_columns` says whether its columns were contiguous. For `proj_type="full"` there
    are two of each.
    """
    basis = _basis(state)
    if basis is None:  # not low-rank, or upstream's first SVD failed
        return {key: value for key, value in state.items() if key != "projector"}
    if not isinstance(basis, list):
        matrix, by_columns = row_major(basis)
        return {**state, "projector": matrix, _BY_COLUMNS: by_columns}
    pairs = [row_major(matrix) for matrix in basis]
    matrices, orders = ([pair[part] for pair in pairs] for part in (0, 1))
    return {**state, "projector": matrices, _BY_COLUMNS: orders}


def live_state(state: State, _: Group) -> State:
    """Return a loaded state with its basis in the order of strides that it had.

    It is on the device of the moments beside it: torch has moved it there, bitsandbytes 0.50.2 has
    not, and neither moves an object that upstream pickled.
    """
    basis = _basis(state)
    plain = {key: value for key, value in state.items() if key not in ("projector", _BY_COLUMNS)}
    if basis is None:
        return plain
    device = next((v.device for v in plain.values() if isinstance(v, torch.Tensor)), None)
    orders = state.get(_BY_COLUMNS)
    if not isinstance(basis, list):
        return {**plain, "projector": _on(basis, device, by_columns=bool(orders))}
    orders = orders or [False] * len(basis)
    matrices = [_on(m, device, by_columns=by) for m, by in zip(basis, orders, strict=True)]
    return {**plain, "projector": matrices}


def _basis(state: State) -> Any:
    """Return a basis, out of upstream's object if it is in one; None if there is none."""
    saved = state.get("projector")
    if not isinstance(saved, GaLoreProjector):
        return saved
    matrices: Any = saved.ortho_matrix
    return [_dense(m) for m in matrices] if isinstance(matrices, list) else _dense(matrices)


def _dense(matrix: Tensor | None) -> Tensor | None:
    """Return a matrix that is no view of the whole SVD factor, as upstream's is in fp32."""
    return None if matrix is None else matrix.clone()


def _on(matrix: Tensor, device: torch.device | None, *, by_columns: bool) -> Tensor:
    return with_strides(matrix.to(device), by_columns=by_columns)
