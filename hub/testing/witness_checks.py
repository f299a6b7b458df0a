"""Check that each parameter got the algorithm that the plan promises: P13."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import plain_tensors
from hub.running.sharded.kinds import sharding_of
from hub.running.steps import members_of
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.kit_model import Model
from hub.testing.subject import Subject, differing, train_on_fixed_gradients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.plans import Plan, PlannedGroup
    from hub.spec import OptimizerSpec

FLAT = (0.6, 1.4)
"""How far the singular values of an orthogonalized matrix are from their median: Newton-Schulz
with Muon's coefficients brings them near 1, to about 0.7 to 1.2 (https://kellerjordan.github.io/posts/muon)."""
MOST = 0.9
PACKED = (torch.uint8, torch.int8)
STEPS = 2


def witnessed(subject: Subject) -> None:
    """P13: the update or the state of each matrix shows the algorithm that the plan promises.

    Orthogonal updates, low-rank and quantized state show where the plan promises them, and nowhere
    else. If several optimizers share a model, each trains its parameters as it does alone.
    """
    model, optimizer = subject.start(**_without_decay(subject))
    before = weights(model)
    _give_gradients(model)
    optimizer.step()
    after = weights(model)
    plan: Plan = optimizer.hub_plan  # type: ignore[attr-defined]
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    promised = [_promised(spec, plan) for spec in (subject.spec, *subject.others.values())]
    for witness, shows in _WITNESSES.items():
        if not any(witness in of for of in promised):
            continue
        names = {name for of in promised for name in of.get(witness, ())}
        expect(names, f"the plan promises {witness} for nothing in the kit's model")
        for name, parameter in parameters.items():
            if parameter.ndim != 2:  # noqa: PLR2004
                continue
            found = shows((after[name] - before[name]).float(), _state(optimizer, parameter))
            expect(found or name not in names, f"{name} lacks {witness}, which the plan promises")
            expect(not found or name in names, f"{name} has {witness}, which the plan does not say")
    _as_alone(subject)


def _is_orthogonal(update: Tensor, _: Any) -> bool:
    values = torch.linalg.svdvals(update)
    near = (values > FLAT[0] * values.median()) & (values < FLAT[1] * values.median())
    return bool(near.float().mean() >= MOST)


def _is_low_rank(update: Tensor, state: Any) -> bool:
    """Whether a state has a matrix of a smaller side than the weight has."""
    matrices = [tensor for tensor in plain_tensors(state) if tensor.ndim == update.ndim]
    return any(min(matrix.shape) < min(update.shape) for matrix in matrices)


def _is_quantized(update: Tensor, state: Any) -> bool:
    tensors = list(plain_tensors(state))
    return any(t.dtype in PACKED and t.numel() >= update.numel() // 2 for t in tensors)


_WITNESSES: dict[str, Callable[[Tensor, Any], bool]] = {
    "orthogonal updates": _is_orthogonal,
    "low-rank state": _is_low_rank,
    "quantized state": _is_quantized,
}
"""What shows in the update and the state of a matrix."""


def _promised(spec: OptimizerSpec, plan: Plan) -> dict[str, set[str]]:
    """Return for which parameters the plan promises which witness of one optimizer."""
    groups = [group for group in plan.groups if group.optimizer in ("", spec.name)]
    found = {}
    if Trait.ORTHOGONAL in spec.traits:
        found["orthogonal updates"] = {p.name for g in groups for p in g.parameters}
    if Trait.LOW_RANK in spec.traits and "rank" in spec.low_rank:
        found["low-rank state"] = {p.name for g in groups if g.low_rank for p in g.parameters}
    sharding = sharding_of(spec)
    smallest = 0 if sharding is None else sharding.quantized_from
    if isinstance(smallest, str):
        smallest = plan.arguments_of(spec.name)[smallest]
    if smallest:
        found["quantized state"] = {
            p.name for g in groups for p in g.parameters if prod(p.shape) >= smallest
        }
    return found


def _state(optimizer: Optimizer, parameter: Tensor) -> Any:
    return next((m.state[parameter] for m in members_of(optimizer) if parameter in m.state), {})


def _give_gradients(model: Model) -> None:
    """Set gradients whose singular values fall from 1 to 0.02, so that flat ones show."""
    for index, parameter in enumerate(model.parameters()):
        if not parameter.requires_grad:
            continue
        generator = torch.Generator().manual_seed(index)
        gradient = torch.randn(parameter.shape, generator=generator)
        if gradient.ndim == 2:  # noqa: PLR2004
            left, values, right = torch.linalg.svd(gradient, full_matrices=False)
            gradient = left @ torch.diag(torch.logspace(0, -1.7, len(values))) @ right
        parameter.grad = gradient.to(parameter)


def _without_decay(subject: Subject) -> dict[str, float]:
    return {"weight_decay": 0.0} if subject.has("weight_decay") else {}


def _as_alone(subject: Subject) -> None:
    """Compare optimizers that share a model with builds of each of them alone."""
    if not subject.others:
        return
    model, optimizer = subject.start(**_without_decay(subject))
    together = weights(train_on_fixed_gradients(model, optimizer, STEPS))
    plan: Plan = optimizer.hub_plan  # type: ignore[attr-defined]
    for member in plan.members:
        alone = replace(subject, name=member.optimizer, partner="")
        if alone.others or Trait.PER_PARAMETER not in alone.spec.traits:
            continue
        other = weights(train_on_fixed_gradients(*alone.start(**_without_decay(alone)), STEPS))
        own = {p.name for group in _groups_of(plan, member.label) for p in group.parameters}
        wrong = sorted(own & set(differing(other, together)))
        expect(not wrong, f"{member.optimizer} is to train {wrong}, and does so only when alone")


def _groups_of(plan: Plan, label: str) -> Iterator[PlannedGroup]:
    labels = sorted((m.label for m in plan.members), key=len, reverse=True)
    for group in plan.groups:
        if next(one for one in labels if group.name.startswith(one)) == label:
            yield group
