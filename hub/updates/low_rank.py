"""Bases of low-rank projections: which side they project, how they are found, and when.

For plugins whose upstream class projects the gradients of target modules, as GaLore does
(arXiv 2403.03507). `singular_bases` is the arithmetic of galore_torch 1.0 (galore_projector.py) and
apollo_torch 1.0.3 (svd_projector.py); `leading_directions` finds nearly the same directions in a
small part of the time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from hub.repairs import seed_from
from hub.updates.same_shapes import Bucket, in_stack, products

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Group = dict[str, Any]
    State = dict[str, Any]

Side = Literal["left", "right", "full"]
Basis = Any
"""A matrix; of the side "full" a list of two."""
Bases = Any
"""A stack of matrices; of the side "full" two."""

OVERSAMPLED = 8
"""Directions that are followed and then dropped (Halko, Martinsson, Tropp 2011, section 4.2)."""
ROUNDS = 2
"""Power iterations (section 4.5)."""
_SUMMED = 8
"""Columns in each sum of a sketch. More take longer, and bring in no more of the directions."""
_GOLDEN = (5**0.5 - 1) / 2
_FIRST_ROUND = 16
"""Steps that the first refresh of all bases takes, or an eighth of the gap, if that is more."""


class NumbersLowRank:
    """Mixin that numbers the parameters of low-rank groups, for `refresh="staggered"`.

    Steps often see only some of them. List the mixin before the upstream class.
    """

    def add_param_group(self: Any, param_group: Group) -> None:
        """Add a group, and number its parameters if it has a `rank`."""
        super().add_param_group(param_group)  # type: ignore[misc]
        numbers = vars(self).setdefault("low_rank_numbers", {})
        if "rank" in param_group:
            for name in param_group.get("param_names", ()):
                numbers.setdefault(name, len(numbers))

    def __getstate__(self: Any) -> dict[str, Any]:
        """Add the numbers, of which torch's copies would know nothing."""
        kept: Any = super().__getstate__()
        return {**kept, "low_rank_numbers": self.low_rank_numbers}


def side_of(shape: Sequence[int], proj_type: str) -> Side:
    """Return which side of a matrix a `proj_type` of GaLore projects."""
    rows, columns = shape
    if proj_type == "std":
        return "right" if rows >= columns else "left"
    if proj_type == "reverse_std":
        return "left" if rows >= columns else "right"
    named: Side = proj_type  # type: ignore[assignment]
    return named


def project(gradients: Tensor, bases: Bases, side: Side) -> Tensor:
    """Return the gradients in the coordinates of their bases.

    Args:
        gradients: Of shape (parameters, rows, columns).
        bases: Theirs, of `stacked_bases`.
        side: The side that they project.
    """
    if side == "full":
        left, right = bases
        return products(products(left.mT, gradients), right.mT)
    basis = bases.to(gradients)
    return products(gradients, basis.mT) if side == "right" else products(basis.mT, gradients)


def project_back(updates: Tensor, bases: Bases, side: Side) -> Tensor:
    """Return updates in the coordinates of their bases as updates of the weights."""
    if side == "full":
        left, right = bases
        return products(products(left, updates), right)
    return products(updates, bases) if side == "right" else products(bases, updates)


def stacked_bases(bucket: Bucket, side: Side) -> Bases:
    """Return the bases of all parameters, of shape (parameters, rows, columns)."""
    if side != "full":
        return bucket.stack("projector")
    left, right = zip(*bucket.column("projector"), strict=True)
    return in_stack(left), in_stack(right)


def refresh_bases(bucket: Bucket, side: Side, numbers: Mapping[str, int]) -> None:
    """Put a new basis into each state of a low-rank bucket that is due for one, as `projector`.

    Args:
        bucket: Its group has `rank`, `update_proj_gap`, `projection` and `refresh`.
        side: The side to project.
        numbers: Of the low-rank parameters, see `NumbersLowRank`.

    Raises:
        torch.linalg.LinAlgError: With `projection="svd"`, a gradient is not finite.
    """
    first: list[int] = []
    due: list[int] = []
    for index, (name, state) in enumerate(zip(bucket.names, bucket.states, strict=True)):
        if is_due(state, bucket.group, numbers.get(name, 0)):
            is_cheap = bucket.group["refresh"] == "staggered" and "projector" not in state
            (first if is_cheap else due).append(index)
    for index in first:
        replace_basis(bucket.states[index], _found(bucket, index, side, sketched_directions))
    if due and bucket.group["projection"] == "randomized":
        for index in due:
            replace_basis(bucket.states[index], _found(bucket, index, side, leading_directions))
    elif due:
        gradients = bucket.gradient if len(due) == len(bucket.states) else bucket.gradient[due]
        bases = singular_bases(gradients, bucket.group["rank"], side)
        for index, basis in zip(due, bases, strict=True):
            replace_basis(bucket.states[index], basis)


def replace_basis(state: State, basis: Basis) -> None:
    """Put a basis into a state, in the memory of the last one if it fits there."""
    last = state.get("projector")
    if isinstance(last, torch.Tensor) and _is_like(last, basis):
        last.copy_(basis)
    else:
        state["projector"] = basis


def _is_like(tensor: Tensor, other: Tensor) -> bool:
    return (tensor.shape, tensor.stride(), tensor.dtype, tensor.device) == (
        other.shape,
        other.stride(),
        other.dtype,
        other.device,
    )


def is_due(state: State, group: Group, number: int) -> bool:
    """Return whether a parameter gets a new projection in this step.

    Staggered parameters get theirs when their number says so, and remember that number. Multiples
    of the golden ratio are spread evenly over the gap, however many there are. A shorter round
    comes before, because it replaces bases that were only sketched.

    Args:
        state: Has `step`, from 0.
        group: Has `update_proj_gap` and `refresh`.
        number: Of the parameter, used if the state has none.
    """
    step: int = state["step"]
    gap: int = group["update_proj_gap"]
    if group["refresh"] == "together":
        return "projector" not in state or step % gap == 0
    part = state.setdefault("refresh_number", number) * _GOLDEN % 1
    first_round = min(gap, max(_FIRST_ROUND, gap // 8))
    if "projector" not in state or step == 1 + int(part * first_round):
        return True
    later = step - 1 - first_round
    return later >= 0 and later % gap == int(part * gap)


def singular_bases(gradients: Tensor, rank: int, side: Side) -> list[Basis]:
    """Return the leading singular vectors of each gradient, as GaLore's projector takes them.

    They are computed in fp32, and have the gradient's dtype, a storage of their size and the order
    of strides that the SVD returns, by which products with them round.

    Raises:
        torch.linalg.LinAlgError: A gradient is not finite.
    """
    matrices = gradients.float()
    is_lone = len(matrices) == 1
    left, _, right = torch.linalg.svd(matrices[0] if is_lone else matrices, full_matrices=False)
    found = []
    if side != "right":
        found.append([_dense(u[:, :rank], gradients) for u in ([left] if is_lone else left)])
    if side != "left":
        found.append([_dense(v[:rank], gradients) for v in ([right] if is_lone else right)])
    return [list(pair) for pair in zip(*found, strict=True)] if side == "full" else found[0]


def _dense(matrix: Tensor, like: Tensor) -> Tensor:
    """Return a matrix in another dtype, with a storage of its own."""
    return matrix.to(like.dtype, copy=True)


def _found(bucket: Bucket, index: int, side: Side, find: Any) -> Basis:
    """Return the basis that `find` finds for one parameter, given the last one."""
    state, group = bucket.states[index], bucket.group
    matrix = bucket.gradient[index].float()
    seed = seed_from(f"{bucket.names[index]} {state['step']}")
    last = state.get("projector")
    lefts, rights = last if isinstance(last, list) else (last, last)
    found = []
    if side != "right":
        found.append(find(matrix, group["rank"], seed=seed, last=lefts))
    if side != "left":
        last = None if rights is None else rights.mT
        found.append(find(matrix.mT, group["rank"], seed=seed + 1, last=last).mT)
    bases = [basis.to(bucket.gradient.dtype) for basis in found]
    return bases if side == "full" else bases[0]


def leading_directions(
    matrix: Tensor, rank: int, *, seed: int, last: Tensor | None = None
) -> Tensor:
    """Return an orthonormal basis of nearly the leading left singular vectors, largest first.

    Power iterations on a random trial, with the last basis if there is one (Halko, Martinsson,
    Tropp 2011, arXiv 0909.4061, algorithm 4.4). Each is two products with the matrix; the second
    one of the last takes only the `rank` directions that the first made longest, so that no third
    product has to find the singular vectors in a larger span (algorithm 5.1). A matrix that is not
    finite leaves the last basis as it is. Nothing waits for the device but the eigenvectors of a
    small matrix.

    Args:
        matrix: In fp32, of shape (rows, columns).
        rank: How many directions; at most the smaller side.
        seed: Of the random numbers, which are drawn on the CPU, so that all devices have the same.
        last: The last basis, of shape (rows, rank).

    Returns:
        Shape (rows, rank), contiguous by columns, as an SVD on the CPU returns it.
    """
    rank = min(rank, *matrix.shape)
    width = min(rank + OVERSAMPLED, *matrix.shape)
    known = 0 if last is None else rank
    drawn = _normal(seed, (matrix.shape[0], width - known)).to(matrix.device)
    trial = drawn if last is None else torch.cat([last.to(matrix), drawn], dim=1)
    for _ in range(ROUNDS - 1):
        trial = torch.linalg.qr(matrix @ _scaled(matrix.mT @ trial)).Q
    seen = _scaled(matrix.mT @ trial)
    squares = seen.mT @ seen
    unit = torch.eye(width, dtype=matrix.dtype, device=matrix.device)
    turn = torch.linalg.eigh(torch.where(squares.isfinite().all(), squares, unit)).eigenvectors
    leading = matrix @ (seen @ turn.flip(1)[:, :rank])
    return _finite_or_last(torch.linalg.qr(leading).Q, last)


def sketched_directions(
    matrix: Tensor, rank: int, *, seed: int, last: Tensor | None = None
) -> Tensor:
    """Return an orthonormal basis of sums of some columns, each with a random sign.

    It costs little more than reading these, and takes in most of the leading directions of all (a
    sparse embedding: Clarkson and Woodruff 2013, arXiv 1207.6365).

    Args:
        matrix: In fp32, of shape (rows, columns).
        rank: How many directions; at most the smaller side.
        seed: Of the signs.
        last: Is returned if the matrix is not finite.

    Returns:
        Shape (rows, rank), contiguous by columns.
    """
    rank = min(rank, *matrix.shape)
    signs = _normal(seed, (matrix.shape[1],)).sign().to(matrix.device)
    sums = matrix.new_zeros(len(matrix), rank)
    stride = rank * max(1, math.ceil(matrix.shape[1] / rank) // _SUMMED)
    for begin in range(0, matrix.shape[1], stride):
        part, own = matrix[:, begin : begin + rank], signs[begin : begin + rank]
        sums[:, : part.shape[1]].addcmul_(part, own)  # without a copy of the whole matrix
    return _finite_or_last(torch.linalg.qr(sums).Q, last)


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), device="cpu")


def _scaled(matrix: Tensor) -> Tensor:
    """Return a matrix whose largest element is 1, so that its squares neither over- nor underflow.

    A matrix of zeros stays.
    """
    return matrix / matrix.abs().amax().clamp_min(torch.finfo(matrix.dtype).tiny)


def _finite_or_last(basis: Tensor, last: Tensor | None) -> Tensor:
    """Return a basis, or the last one if it is not finite; without one, the first unit vectors."""
    if last is None:
        last = torch.eye(*basis.shape, dtype=basis.dtype, device=basis.device)
    # Elements of a basis are at most 1, so that the sum of finite ones is finite.
    kept = torch.where(basis.sum().isfinite(), basis, last.to(basis))
    return kept.mT.contiguous().mT
