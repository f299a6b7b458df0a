"""Fixes for the optimizers of galore_torch 1.0, over bitsandbytes 0.50.2."""

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

from hub.repairs import (
    HookedLoading,
    enable_grad_in_closures,
    keep_state_dtypes,
    row_major,
    translate_state,
    with_strides,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer

    Group = dict[str, Any]
    State = dict[str, Any]
    Index = tuple[int, int]  # of a group, and of a parameter in it


_BY_COLUMNS = "projector_by_columns"
"""The key of a saved state that says whether its projector was in column order."""


def adamw(groups: list[Group], **arguments: Any) -> Optimizer:
    """Return an instance of upstream's class, which warns of its deprecation unless told not to."""
    return _fixed(GaLoreAdamW(groups, **arguments, no_deprecation_warning=True))


def adafactor(groups: list[Group], **arguments: Any) -> Optimizer:
    """Return an instance of upstream's class, whose state stays in fp32 for bf16 and fp16 weights.

    torch casts it when it loads a state dict.
    """
    optimizer = GaLoreAdafactor(groups, **arguments)
    keep_state_dtypes(optimizer)  # before `translate_state`
    return _fixed(optimizer)


def _fixed(optimizer: Optimizer) -> Optimizer:
    """Let closures call `backward`, keep projectors small and state dicts plain."""
    enable_grad_in_closures(optimizer)
    optimizer.register_step_post_hook(_compact_projectors)
    translate_state(optimizer, plain_state, _loaded)
    return optimizer


def _compact_projectors(optimizer: Optimizer, _args: object, _kwargs: object) -> None:
    for group in optimizer.param_groups:
        if "rank" in group:
            for parameter in group["params"]:
                if "projector" in optimizer.state.get(parameter, ()):
                    _compact(optimizer.state[parameter]["projector"])


def _compact(projector: GaLoreProjector) -> None:
    """Free the singular vectors that the projection does not use.

    For fp32 gradients galore_torch 1.0 keeps a view of the whole SVD factor alive and, through
    `torch.save`, writes it into checkpoints: rows x rows or columns x columns instead of
    rows x rank. The copy keeps the order of the strides, by which products with it round.
    """
    matrices = projector.ortho_matrix
    projector.ortho_matrix = (
        [_dense(matrix) for matrix in matrices] if isinstance(matrices, list) else _dense(matrices)
    )


def _dense(matrix: Tensor | None) -> Tensor | None:
    """Return a matrix with a storage of its size; None after a first SVD that failed."""
    if matrix is None:
        return None
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


def plain_state(state: State, _: Group) -> State:
    """Return one parameter's state with the matrix in place of the projector object.

    For `proj_type="full"` there are two. Their rows are contiguous; `projector_by_columns` says
    which had contiguous columns.
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

    torch has moved the matrix there, bitsandbytes 0.50.2 has not. Neither moves a projector that
    upstream pickled. That one is copied, and keeps its rank and gap.
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


class GaLoreAdamW8bit(HookedLoading, UpstreamAdamW8bit):  # type: ignore[misc]  # both untyped
    """The algorithm of galore_torch 1.0 (adamw8bit.py), in which all weights train.

    Upstream's constructor passes arguments by position that bitsandbytes 0.50 takes for others
    (max_unorm=100 and skip_zeros=True), which clip updates with 32-bit state and a zero buffer to
    nothing. Its `step` needs CUDA, swaps the weight and its gradient for projected ones, and
    changes the group while it runs.
    """

    initialized: bool

    def __init__(self, params: list[Group], **arguments: Any) -> None:
        Optimizer2State.__init__(
            self, "adam", params, optim_bits=8, max_unorm=0.0, skip_zeros=False, **arguments
        )
        translate_state(self, plain_state, _loaded)

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
        """Return what a copy needs; torch keeps three attributes, and drops bitsandbytes'.

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
        """Project, take AdamW's step from zero, project it back and add it; then decay."""
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
