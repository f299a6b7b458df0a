"""Builds galore_torch's optimizers and mends what is wrong with them."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.functional import GlobalPageManager
from bitsandbytes.optim.optimizer import GlobalOptimManager, Optimizer2State
from bitsandbytes.utils import sync_gpu
from galore_torch import GaLoreAdafactor, GaLoreAdamW
from galore_torch import GaLoreAdamW8bit as UpstreamAdamW8bit
from galore_torch.galore_projector import GaLoreProjector

from hub.checkpoint import (
    HookedLoading,
    keep_state_dtypes,
    row_major,
    translate_state,
    with_strides,
)
from hub.mending import enable_grad_in_closures

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer

    Group = dict[str, Any]
    State = dict[str, Any]
    Index = tuple[int, int]  # of a group, and of a parameter in it


def build(name: str, groups: list[Group], arguments: dict[str, Any]) -> Optimizer:
    """Return the optimizer, with state dicts of plain tensors and closures that work."""
    optimizer = _BUILDERS[name](groups, arguments)
    translate_state(optimizer, _saved, _loaded)
    return optimizer


def _adamw(groups: list[Group], arguments: dict[str, Any]) -> Optimizer:
    """Build upstream's own class; it warns about its deprecation unless told not to."""
    return _mended(GaLoreAdamW(groups, **arguments, no_deprecation_warning=True))


def _adafactor(groups: list[Group], arguments: dict[str, Any]) -> Optimizer:
    """Build upstream's own class, whose state stays in fp32 for bf16 and fp16 parameters."""
    optimizer = _mended(GaLoreAdafactor(groups, **arguments))
    keep_state_dtypes(optimizer)
    return optimizer


def _mended(optimizer: Optimizer) -> Optimizer:
    enable_grad_in_closures(optimizer)
    optimizer.register_step_post_hook(_compact_projectors)
    return optimizer


def _compact_projectors(optimizer: Optimizer, _args: object, _kwargs: object) -> None:
    for group in optimizer.param_groups:
        if "rank" in group:
            for parameter in group["params"]:
                if "projector" in optimizer.state.get(parameter, ()):
                    _compact(optimizer.state[parameter]["projector"])


def _compact(projector: GaLoreProjector) -> None:
    """Let go of the singular vectors that the projection leaves out.

    For fp32 gradients galore_torch 1.0 keeps a view of the whole SVD factor alive and, through
    `torch.save`, writes it into checkpoints: rows x rows or columns x columns where the rank says
    rows x rank. The copy keeps the order of the strides and so the rounding of products with it.
    """
    matrices = projector.ortho_matrix
    projector.ortho_matrix = (
        [_dense(matrix) for matrix in matrices] if isinstance(matrices, list) else _dense(matrices)
    )


def _dense(matrix: Tensor | None) -> Tensor | None:
    """Return a matrix without what its storage has besides; None after a first SVD that failed."""
    if type(matrix) is not torch.Tensor:  # DTensors, under FSDP2, have no storage to look at
        return matrix
    # Not `nbytes`: torch.compile (2.13) cannot trace it.
    size = matrix.numel() * matrix.element_size()
    return matrix.clone() if matrix.untyped_storage().nbytes() > size else matrix


def _new_projector(group: Group) -> GaLoreProjector:
    return GaLoreProjector(
        group["rank"],
        update_proj_gap=group["update_proj_gap"],
        scale=group["scale"],
        proj_type=group["proj_type"],
    )


def _saved(state: State, _: Group) -> State:
    """Replace the projector object by its matrix, or by both of them for `proj_type="full"`.

    Their rows are contiguous; `projector_by_columns` tells whose columns were.
    """
    projector = state.get("projector")
    if not isinstance(projector, GaLoreProjector):
        return state
    if projector.ortho_matrix is None:  # its first SVD failed
        return {key: value for key, value in state.items() if key != "projector"}
    return {**state, **_saved_matrices(projector.ortho_matrix)}


def _saved_matrices(matrices: Any) -> State:
    if not isinstance(matrices, list):
        matrix, by_columns = row_major(matrices)
        return {"projector": matrix, _BY_COLUMNS: by_columns}
    pairs = [row_major(matrix) for matrix in matrices]
    return {"projector": [matrix for matrix, _ in pairs], _BY_COLUMNS: [by for _, by in pairs]}


def _loaded(state: State, group: Group) -> State:
    """Rebuild the projector around its matrix, on the device of the moments beside it.

    torch has moved the matrix there, bitsandbytes 0.50.2 has not. Nor has anyone moved a projector
    that upstream pickled as it is, which keeps its own rank and gap and is not shared with the
    optimizer it comes from.
    """
    saved: Any = state.get("projector")
    by_columns = state.get(_BY_COLUMNS, False)
    state = {key: value for key, value in state.items() if key != _BY_COLUMNS}
    is_live = isinstance(saved, GaLoreProjector)
    matrices = saved.ortho_matrix if is_live else saved
    if matrices is None:
        return state
    projector = copy(saved) if is_live else _new_projector(group)
    device = next(
        value.device
        for key, value in state.items()
        if key != "projector" and isinstance(value, torch.Tensor)
    )
    projector.ortho_matrix = (
        [
            with_strides(matrix.to(device), by_columns=by)
            for matrix, by in zip(matrices, by_columns or [False] * len(matrices), strict=True)
        ]
        if isinstance(matrices, list)
        else with_strides(matrices.to(device), by_columns=by_columns)
    )
    return {**state, "projector": projector}


_BY_COLUMNS = "projector_by_columns"
"""The key of a saved state that tells the order of strides that its projector had."""


class GaLoreAdamW8bit(HookedLoading, UpstreamAdamW8bit):  # type: ignore[misc]  # both untyped
    """The definition of galore_torch 1.0 (adamw8bit.py), carried out so that all weights train.

    Upstream's constructor passes arguments by position that bitsandbytes 0.50 takes for others
    (max_unorm=100 and skip_zeros=True): the updates of 32-bit state under a zero buffer are then
    clipped to nothing. Its `step` needs CUDA, swaps the weight and its gradient for projected ones
    and changes the group while it runs.
    """

    initialized: bool

    def __init__(self, params: list[Group], **arguments: Any) -> None:
        Optimizer2State.__init__(
            self, "adam", params, optim_bits=8, max_unorm=0.0, skip_zeros=False, **arguments
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if any, reevaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.initialized:  # as in bitsandbytes' own `step`
            self.check_overrides()
            self.to_gpu()
            self.initialized = True
        for gindex, group in enumerate(self.param_groups):
            update = self._update_low_rank if "rank" in group else self._update_plain
            for pindex, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    update(parameter, parameter.grad, group, (gindex, pindex))
        return loss

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs too; torch keeps three attributes, and drops upstream's own.

        The managers that all optimizers of bitsandbytes 0.50 share are not copied.
        """
        kept = {key: vars(self)[key] for key in _ATTRIBUTES}
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over loaded or copied state."""
        super().__setstate__(state)
        self.mng = GlobalOptimManager.get_instance()
        self.page_mng = GlobalPageManager.get_instance()

    def _update_low_rank(self, parameter: Tensor, grad: Tensor, group: Group, at: Index) -> None:
        """Project, take AdamW's step from zero, project that back and add it; then decay."""
        state = self.state[parameter]
        if "projector" not in state:
            state["projector"] = _new_projector(group)
        projector = state["projector"]
        low_rank_grad = projector.project(grad, state.get("step", 0))
        _compact(projector)
        update = torch.zeros_like(low_rank_grad)
        no_decay = {**group, "weight_decay": 0.0}
        self._update_stand_in(parameter, update, low_rank_grad, no_decay, at)
        parameter.add_(projector.project_back(update))
        if group["weight_decay"] > 0:
            parameter.add_(parameter, alpha=-group["lr"] * group["weight_decay"])

    def _update_plain(self, parameter: Tensor, grad: Tensor, group: Group, at: Index) -> None:
        """Take AdamW's step on the parameter itself."""
        if parameter.is_contiguous() and grad.is_contiguous():
            self._update_state(parameter, group, at)
            return
        # `update_step` of bitsandbytes 0.50.2 would move both to other storage.
        updated = parameter.detach().clone(memory_format=torch.contiguous_format)
        self._update_stand_in(parameter, updated, grad, group, at)
        parameter.copy_(updated)

    def _update_stand_in(
        self, parameter: Tensor, stand_in: Tensor, grad: Tensor, group: Group, at: Index
    ) -> None:
        """Update another tensor, in place, with the parameter's state."""
        stand_in.grad = grad
        self.state[stand_in] = self.state[parameter]
        try:
            self._update_state(stand_in, group, at)
        finally:
            del self.state[stand_in]

    def _update_state(self, tensor: Tensor, group: Group, at: Index) -> None:
        if "state1" not in self.state[tensor]:
            self.init_state(group, tensor, *at)
        self.update_step(group, tensor, *at)
        sync_gpu(tensor)  # as bitsandbytes does: its CUDA kernels are given no stream


_ATTRIBUTES = (
    "initialized",
    "name2qmap",
    "is_paged",
    "non_castable_tensor_keys",
    "args",
    "optimizer_name",
)


def _adamw_8bit(groups: list[Group], arguments: dict[str, Any]) -> Optimizer:
    return GaLoreAdamW8bit(groups, **arguments)


_BUILDERS: dict[str, Callable[[list[Group], dict[str, Any]], Optimizer]] = {
    "galore_adamw": _adamw,
    "galore_adamw_8bit": _adamw_8bit,
    "galore_adafactor": _adafactor,
}


def converted(state: State, group: Group) -> State:
    """Return what hub saves for one parameter's state of the bare class."""
    return _saved(state, group)
