"""Random projections, which follow from the names of the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from apollo_torch.random_projector import GradientProjector, next_seed

from hub.repairs import seed_from
from hub.updates.low_rank import is_due, replace_basis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hub.updates.low_rank import Side
    from hub.updates.same_shapes import Bucket

    Group = dict[str, Any]
    State = dict[str, Any]


def refresh_random_bases(bucket: Bucket, side: Side, numbers: Mapping[str, int]) -> None:
    """Put a new matrix into each state of a bucket that is due for one, and its `seed` beside it.

    A checkpoint has the seed alone; its matrix is drawn again.

    Args:
        bucket: Low-rank parameters.
        side: The side to project.
        numbers: Theirs, see `hub.updates.low_rank.NumbersLowRank`.
    """
    for index, (name, state) in enumerate(zip(bucket.names, bucket.states, strict=True)):
        is_restored = "seed" in state and "projector" not in state
        if is_restored and "exp_avg" in state:
            replace_basis(state, _drawn(bucket, index, side))
        if is_due(state, bucket.group, numbers.get(name, 0)):
            if "seed" not in state:
                state["seed"] = seed_from(name)
            elif "exp_avg" in state:
                state["seed"] = _following(state["seed"])
            replace_basis(state, _drawn(bucket, index, side))


def _drawn(bucket: Bucket, index: int, side: Side) -> Tensor:
    """Draw a matrix on the gradient's device, as upstream does (random_projector.py)."""
    rank, seed = bucket.group["rank"], bucket.states[index]["seed"]
    matrix: Tensor = GradientProjector(rank).get_orthogonal_matrix(
        bucket.gradient[index], rank, type=side, seed=seed
    )
    return matrix


def _following(seed: int) -> int:
    """Return upstream's next seed; apollo_torch 1.0.3 draws it on torch's default device."""
    with torch.device("cpu"):
        found: int = next_seed(seed)
    return found


def seed_behind(projector: GradientProjector, state: State) -> int | None:
    """Return the seed of the matrix of upstream's object, which knows only the next one's.

    None: the first seed, beside it in the state, does not lead there.
    """
    seed: int = state["seed"]
    for _ in range(state.get("step", 0) + 1):
        following = _following(seed)
        if following == projector.seed:
            return seed
        seed = following
    return None
