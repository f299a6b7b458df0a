"""What checkpoints of `apollo_adamw` hold, and what those of apollo_torch's class hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apollo_torch.random_projector import GradientProjector
from apollo_torch.svd_projector import GaLoreProjector

from hub.errors import CheckpointError
from hub.repairs import row_major, with_strides
from hub_apollo.random_bases import seed_behind

if TYPE_CHECKING:
    Group = dict[str, Any]
    State = dict[str, Any]

_BY_COLUMNS = "projector_by_columns"
"""The key of a saved state that says whether its basis was in column order."""


def plain_state(state: State, _: Group) -> State:
    """Return a state with its basis by rows or, of a random one, only the seed."""
    basis = state.get("projector")
    if basis is not None and "seed" not in state:
        matrix, by_columns = row_major(basis)
        return {**state, "projector": matrix, _BY_COLUMNS: by_columns}
    return {key: value for key, value in state.items() if key != "projector"}


def live_state(state: State, group: Group) -> State:
    """Return a loaded state with its basis in the order of strides that it had, or its seed.

    Upstream's checkpoints have seeds in all groups, and objects around bases.

    Raises:
        CheckpointError: A random projection of upstream's does not follow from the seed beside it.
    """
    ours = ("projector", "seed", _BY_COLUMNS)
    plain = {key: value for key, value in state.items() if key not in ours}
    if "rank" not in group:
        return plain
    if group["proj"] == "random":
        return {**plain, "seed": _seed(state)} if "seed" in state else plain
    saved = state.get("projector")
    if isinstance(saved, GaLoreProjector):
        saved = None if saved.ortho_matrix is None else saved.ortho_matrix.clone()
    if saved is None:
        return plain
    by_columns = state.get(_BY_COLUMNS, False)
    return {**plain, "projector": with_strides(saved, by_columns=by_columns)}


def _seed(state: State) -> int:
    """Return the seed of the current matrix, or of the first one."""
    projector = state.get("projector")
    is_upstreams = isinstance(projector, GradientProjector)
    if projector is None or not is_upstreams or projector.ortho_matrix is None:
        seed: int = state["seed"]
        return seed
    behind = seed_behind(projector, state)
    if behind is None:
        raise CheckpointError(
            "a random projection of the checkpoint was not drawn from the seed beside it",
            where="load_state_dict of apollo_adamw",
            fix="start without optimizer state",
            plugin="hub-apollo",
        )
    return behind


def converted_state(state: State, group: Group) -> State:
    """Return what hub saves for one parameter's state of the upstream class."""
    return plain_state(live_state(state, group), group)
