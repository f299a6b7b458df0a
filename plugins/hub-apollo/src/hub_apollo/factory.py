"""Fixes for the APOLLOAdamW of apollo_torch 1.0.3."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from apollo_torch import APOLLOAdamW as UpstreamAPOLLOAdamW
from apollo_torch.random_projector import GradientProjector, next_seed
from apollo_torch.svd_projector import GaLoreProjector

from hub.errors import CheckpointError
from hub.repairs import (
    enable_grad_in_closures,
    row_major,
    seed_from,
    translate_state,
    with_strides,
)
from hub_apollo.arguments import LowRankArguments

if TYPE_CHECKING:
    from torch import Tensor

    Group = dict[str, Any]
    State = dict[str, Any]


_BY_COLUMNS = "projector_by_columns"
"""The key of a saved state that says whether its projector was in column order."""


class APOLLOAdamW(UpstreamAPOLLOAdamW):  # type: ignore[misc]  # untyped
    """Upstream's class, with seeds that follow from the names of the parameters.

    apollo_torch 1.0.3 (apollo.py) numbers the parameters that its constructor sees. Those that come
    later have no seed and fail, optimizers over one parameter each all have the seed 1, and another
    order of the groups gives other projections.
    """

    scale_front: bool
    disable_nl: bool

    def __init__(self, params: list[Group], **arguments: Any) -> None:
        """Build as upstream does, without its seeds.

        Args:
            params: Groups with `param_names`. Those with `rank` have all keys that go with it.
            arguments: Of upstream's constructor.
        """
        super().__init__(params, **arguments)
        # Torch's distributed checkpoints would take the seeds for an initialized optimizer, and
        # then load nothing else from disk.
        self.state.clear()
        _attach(self)

    def __getstate__(self) -> State:
        """Add what upstream keeps outside groups and state, so that copies have it."""
        attributes = {"scale_front": self.scale_front, "disable_nl": self.disable_nl}
        return {**super().__getstate__(), **attributes}

    def __setstate__(self, state: State) -> None:
        """Restore a copy, or take over what `load_state_dict` has read."""
        is_new = "_optimizer_step_pre_hooks" not in vars(self)
        super().__setstate__(state)
        if is_new:
            _attach(self)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group. What one with `rank` leaves out comes from the first such group."""
        if "rank" in param_group:
            first: Group = next((group for group in self.param_groups if "rank" in group), {})
            for key in LowRankArguments.model_fields:
                if key in first:
                    param_group.setdefault(key, first[key])
        super().add_param_group(param_group)

    def _initialize_projector(self, group: Group, state: State) -> RandomProjector | SvdProjector:
        """Return a projector for the parameter that `step` has reached, given its state."""
        if group["proj"] == "svd":
            return _svd_projector(group)
        # `step` has just made the state, so the search ends at its first item.
        owner = next(p for p, candidate in reversed(self.state.items()) if candidate is state)
        index = next(index for index, p in enumerate(group["params"]) if p is owner)
        return _random_projector(group, seed_from(group["param_names"][index]))


class RandomProjector(GradientProjector):  # type: ignore[misc]  # untyped
    """Upstream's random projection, which remembers the seed of its matrix.

    A private generator on the gradient's device draws the matrix, so the seed is all that a
    checkpoint needs. The matrix of a restored projector is drawn in its next step.
    """

    ortho_matrix: Any
    seed: int
    """Of the next matrix."""
    drawn_from: int | None = None
    """The seed of the current matrix; None before the first."""

    def project(self, full_rank_grad: Tensor, iter: int) -> Tensor:  # noqa: A002 - upstream's name
        """Return the projected gradient of the step number `iter`, from 0."""
        is_restored = self.ortho_matrix is None and self.drawn_from is not None
        if is_restored and iter % self.update_proj_gap == 0:
            self.seed = next_seed(self.seed)  # the saved matrix is due for replacement
        low_rank_grad: Tensor = super().project(full_rank_grad, iter)
        return low_rank_grad

    def update_ortho_matrix(self, full_rank_grad: Tensor, proj_type: str) -> None:
        """Draw a matrix, and remember its seed."""
        seed = self.seed
        super().update_ortho_matrix(full_rank_grad, proj_type)
        self.drawn_from = seed


class SvdProjector(GaLoreProjector):  # type: ignore[misc]  # untyped
    """Upstream's projection by singular vectors, keeping only those that it uses.

    For fp32 gradients apollo_torch 1.0.3 (svd_projector.py) keeps a view of the whole SVD factor
    alive and, through `torch.save`, writes it into checkpoints.
    """

    def get_orthogonal_matrix(
        self,
        weights: Tensor,
        rank: int,
        type: str,  # noqa: A002 - upstream's name
    ) -> Tensor:
        """Return the leading singular vectors, in the order of strides that upstream has.

        Products with the matrix round by that order.
        """
        matrix: Tensor = super().get_orthogonal_matrix(weights, rank, type)
        wasteful = matrix.untyped_storage().nbytes() > matrix.nbytes
        return matrix.clone() if wasteful else matrix


def _random_projector(group: Group, seed: int) -> RandomProjector:
    return RandomProjector(**_projector_arguments(group), seed=seed)


def _svd_projector(group: Group) -> SvdProjector:
    return SvdProjector(**_projector_arguments(group))


def _projector_arguments(group: Group) -> dict[str, Any]:
    return {key: group[key] for key in ("rank", "update_proj_gap", "scale", "proj_type")}


def _attach(optimizer: APOLLOAdamW) -> None:
    """Add the hooks that fix steps and state dicts."""
    enable_grad_in_closures(optimizer)
    if not optimizer.disable_nl:
        optimizer.register_step_post_hook(_lift_limits_of_zero)
    translate_state(optimizer, _saved, _loaded)


def _lift_limits_of_zero(optimizer: APOLLOAdamW, _args: object, _kwargs: object) -> None:
    """Let an update of any size follow one of zero, as if it were the first.

    The limiter of apollo_torch 1.0.3 (apollo.py) lets the norm of an update grow by 1 % a step,
    from 1e-8 if it was zero. One gradient of zeros, such as the first one below a zero-initialized
    layer, thus stops a weight for nearly two thousand steps. An infinite norm limits nothing.
    The test takes one synchronization per step; upstream has one for each weight.
    """
    limited: dict[torch.device, list[State]] = defaultdict(list)
    for group in optimizer.param_groups:
        for parameter in group["params"] if "rank" in group else ():
            state = optimizer.state.get(parameter)
            if state and "scaled_grad" in state:
                limited[parameter.device].append(state)
    for states in limited.values():
        if not torch.stack([state["scaled_grad"] for state in states]).all():
            for state in states:
                norm = state["scaled_grad"]
                state["scaled_grad"] = norm.masked_fill(norm == 0, torch.inf)


def _saved(state: State, _: Group) -> State:
    """Replace the projector by the seed of its matrix or, from an SVD, by the matrix itself."""
    plain = {key: value for key, value in state.items() if key != "projector"}
    projector = state.get("projector")
    if isinstance(projector, RandomProjector):
        is_drawn = projector.drawn_from is not None
        return {**plain, "seed": projector.drawn_from if is_drawn else projector.seed}
    if isinstance(projector, SvdProjector) and projector.ortho_matrix is not None:
        matrix, by_columns = row_major(projector.ortho_matrix)
        return {**plain, "projector": matrix, _BY_COLUMNS: by_columns}
    return plain  # of a group without rank, or the first SVD failed


def _loaded(state: State, group: Group) -> State:
    """Rebuild the projector. Upstream's checkpoints have seeds in groups without rank too."""
    ours = ("projector", "seed", _BY_COLUMNS)
    plain = {key: value for key, value in state.items() if key not in ours}
    projector = _restored(state, group) if "rank" in group else None
    return plain if projector is None else {**plain, "projector": projector}


def _restored(state: State, group: Group) -> RandomProjector | SvdProjector | None:
    """Return a projector for what was saved: a matrix, a seed, or an object that upstream pickled.

    An object is not shared with the optimizer it comes from.
    """
    saved = state.get("projector")
    if isinstance(saved, GaLoreProjector):
        projector = _svd_projector(group)
        projector.__dict__.update(vars(saved))
        return projector
    if isinstance(saved, torch.Tensor):
        projector = _svd_projector(group)
        by_columns = state.get(_BY_COLUMNS, False)
        projector.ortho_matrix = with_strides(saved, by_columns=by_columns)
        return projector
    if group["proj"] == "svd" or "seed" not in state:
        return None
    is_drawn = getattr(saved, "ortho_matrix", None) is not None
    seed = _seed_behind(saved, state) if is_drawn else state["seed"]
    random_projector = _random_projector(group, seed)
    random_projector.drawn_from = seed if "exp_avg" in state else None
    return random_projector


def _seed_behind(projector: GradientProjector, state: State) -> int:
    """Return the seed of the matrix of upstream's object, which knows only the next one's.

    Raises:
        CheckpointError: The first seed, beside it in the state, does not lead there.
    """
    seed: int = state["seed"]
    for _ in range(state.get("step", 0) + 1):
        following = next_seed(seed)
        if following == projector.seed:
            return seed
        seed = following
    raise CheckpointError(
        "a random projection of the checkpoint was not drawn from the seed beside it",
        where="load_state_dict of apollo_adamw",
        fix="start without optimizer state",
        plugin="hub-apollo",
    )


def converted_state(state: State, group: Group) -> State:
    """Return what hub saves for one parameter's state of the upstream class."""
    return _saved(_loaded(state, group), group)
