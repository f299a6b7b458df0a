"""Adafactor (https://arxiv.org/abs/1804.04235), with the arithmetic of `transformers.Adafactor`.

The code follows Transformers 5.23 (`optimization.py`) operation by operation, so that a run that
moves to hub computes the same bits and can load its checkpoint. `torch.optim.Adafactor` differs: it
is Big Vision's variant, whose learning rate always scales with the weight and is bounded by the
number of steps. It has no first moment, and its state has other names.

Half-precision parameters are updated in fp32 and written back. Their state is fp32.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import (
    _foreach_add_,
    _foreach_clamp_min_,
    _foreach_copy_,
    _foreach_div,
    _foreach_div_,
    _foreach_mul,
    _foreach_mul_,
    _foreach_rsqrt,
    _foreach_rsqrt_,
    _foreach_sub_,
)
from torch.optim import Optimizer
from torch.optim.optimizer import _default_to_fused_or_foreach

from hub.arguments.resolve import validate_arguments
from hub.builtin.arguments import AdafactorArguments
from hub.errors import UnsupportedError
from hub.repairs import keep_state_dtypes
from hub.updates.stepping import StepWithClosure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor
    from torch.optim.optimizer import ParamsT

    Group = dict[str, Any]
    State = dict[str, Any]

_HALF = (torch.float16, torch.bfloat16)
_MATRIX = 2
"""The number of dimensions from which second moments are factored."""
_CHUNK_ELEMENTS = 2**18
"""Elements after which a multi-tensor update ends. Temporary tensors as large as all weights would
use up the memory that factoring saves, and would not fit into the processor's cache."""
_ROW, _COLUMN = "exp_avg_sq_row", "exp_avg_sq_col"


class _Work(NamedTuple):
    """One parameter in a step; `grad` and `weight` are fp32 copies if it is half-precision."""

    parameter: Tensor
    grad: Tensor
    weight: Tensor
    state: State


def step_size(group: Group, state: State) -> float:
    """Return the learning rate of a parameter's last update.

    Args:
        group: The parameter's group.
        state: The parameter's state, after at least one step.
    """
    rate = _rate(group, state)
    if group["scale_parameter"]:
        rate = float(max(group["eps"][1], state["RMS"]) * rate)
    return rate


def _rate(group: Group, state: State) -> float:
    """Return the learning rate, before it is scaled by the weight's root mean square."""
    if not group["relative_step"]:
        return float(group["lr"])
    step: int = state["step"]
    return min(1e-6 * step if group["warmup_init"] else 1e-2, 1.0 / math.sqrt(step))


class Adafactor(StepWithClosure, Optimizer):
    """Adafactor with the arguments and defaults of `transformers.Adafactor` (5.23).

    It updates one tensor at a time or, with `foreach`, many. `hub.build("adafactor", model)` uses
    the arguments that Transformers' Trainer passes as its defaults instead.

    The state of a parameter of shape (..., n, m) has `exp_avg_sq_row` of shape (..., n) and
    `exp_avg_sq_col` of shape (..., m). A parameter with fewer than two dimensions has `exp_avg_sq`
    of the parameter's shape. With `beta1` the state also has `exp_avg` of the parameter's shape.

    `step` raises `UnsupportedError` for a sparse gradient, and updates nothing then.
    """

    _get_lr = staticmethod(step_size)  # as `transformers.optimization.AdafactorSchedule` calls it

    def __init__(
        self,
        params: ParamsT,
        lr: float | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
        *,
        foreach: bool | None = None,
    ) -> None:
        """Create the optimizer.

        Args:
            params: As for every torch optimizer; a group may override any argument.
            lr: Learning rate; None with `relative_step`, and only then.
            eps: Added to the squared gradient, and the minimum root mean square of a weight that
                `scale_parameter` scales by.
            clip_threshold: Maximum root mean square of an update, before the learning rate is
                applied.
            decay_rate: Power of the step number in the decay rate of the running averages.
            beta1: Decay rate of the running average of updates; None keeps none.
            weight_decay: Decoupled weight decay coefficient.
            scale_parameter: Multiply the learning rate by the root mean square of the weight.
            relative_step: Compute the learning rate from the number of steps.
            warmup_init: Let the computed learning rate rise slowly from near zero.
            foreach: Use the multi-tensor implementation; None lets torch decide.

        Raises:
            OptimArgsError: An argument is invalid, or contradicts another.
        """
        arguments = {
            "lr": lr,
            "eps": eps,
            "clip_threshold": clip_threshold,
            "decay_rate": decay_rate,
            "beta1": beta1,
            "weight_decay": weight_decay,
            "scale_parameter": scale_parameter,
            "relative_step": relative_step,
            "warmup_init": warmup_init,
            "foreach": foreach,
        }
        checked = validate_arguments("Adafactor", AdafactorArguments, arguments)
        super().__init__(params, checked.model_dump())
        keep_state_dtypes(self)
        self.register_load_state_dict_post_hook(_to_fp32)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Accept groups saved by Transformers, which lack `foreach`."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("foreach", None)

    def _update_all(self) -> None:
        """Update all parameters that have a gradient.

        Raises:
            UnsupportedError: A gradient is sparse; then nothing is updated.
        """
        trained = [
            (group, [p for p in group["params"] if p.grad is not None])
            for group in self.param_groups
        ]
        _refuse_sparse(p for _, parameters in trained for p in parameters)
        for group, parameters in trained:
            together = group["foreach"]
            if together is None:
                _, together = _default_to_fused_or_foreach(parameters, differentiable=False)
            if together:
                for some in self._same_kind(parameters):
                    _update_together(group, [self._work(group, p) for p in some])
            else:
                for parameter in parameters:
                    _update(group, self._work(group, parameter))

    def _same_kind(self, parameters: list[Tensor]) -> Iterator[list[Tensor]]:
        """Return lists of parameters with the same dtype, device, state layout and step count."""
        kinds = defaultdict(list)
        for parameter in parameters:
            is_factored, steps = parameter.ndim >= _MATRIX, self.state[parameter].get("step", 0)
            kinds[parameter.dtype, parameter.device, is_factored, steps].append(parameter)
        return chain.from_iterable(map(_chunks, kinds.values()))

    def _work(self, group: Group, parameter: Tensor) -> _Work:
        """Begin a parameter's step."""
        grad: Tensor = parameter.grad  # type: ignore[assignment]  # checked by step
        state = self.state[parameter]
        grad, weight = _full_precision(grad), _full_precision(parameter)
        if not state:
            state.update(_fresh(group, grad))
        state["step"] += 1
        return _Work(parameter, grad, weight, state)


def _scaled(group: Group, rms: Tensor, rate: float, factor: float = 1.0) -> Tensor:
    """Return the rate, times the larger of a weight's and the minimum RMS, times a factor.

    Transformers compares the two, which waits for the device; this computes both products. The
    factor comes last in each, as in Transformers.
    """
    minimum = group["eps"][1]
    return torch.where(rms > minimum, rms * rate * factor, minimum * rate * factor)


def _beta2(group: Group, state: State) -> float:
    return 1.0 - math.pow(state["step"], group["decay_rate"])


def _fresh(group: Group, grad: Tensor) -> State:
    """Return the initial state for a gradient in full precision."""
    state: State = {"step": 0}
    if group["beta1"] is not None:
        state["exp_avg"] = torch.zeros_like(grad)
    if grad.ndim >= _MATRIX:
        state[_ROW] = grad.new_zeros(grad.shape[:-1])
        state[_COLUMN] = grad.new_zeros(grad.shape[:-2] + grad.shape[-1:])
    else:
        state["exp_avg_sq"] = torch.zeros_like(grad)
    state["RMS"] = 0
    return state


def _full_precision(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor


def _rms(tensor: Tensor) -> Tensor:
    rms: Tensor = torch.linalg.vector_norm(tensor) / tensor.numel() ** 0.5
    return rms


def _update(group: Group, work: _Work) -> None:
    """Update one parameter."""
    parameter, grad, weight, state = work
    square = torch.mul(grad, grad).add_(group["eps"][0])
    update = _inverse_root(state, square, _beta2(group, state)).mul_(grad)
    update.div_((_rms(update) / group["clip_threshold"]).clamp_(min=1.0))
    rate, decay = _rate_and_decay(group, weight, state)
    update.mul_(rate)
    if group["beta1"] is not None:
        update = state["exp_avg"].mul_(group["beta1"]).add_(update, alpha=1 - group["beta1"])
    if group["weight_decay"] != 0:
        weight.add_(weight, alpha=decay)
    weight.sub_(update)
    if weight is not parameter:
        parameter.copy_(weight)


def _rate_and_decay(group: Group, weight: Tensor, state: State) -> tuple[float | Tensor, float]:
    """Return the learning rate, and the share of the weight that weight decay adds (negative)."""
    rate, decay = _rate(group, state), -group["weight_decay"]
    if not group["scale_parameter"]:
        return rate, decay * rate
    rms = state["RMS"] = _rms(weight)
    return _scaled(group, rms, rate), float(_scaled(group, rms, rate, decay)) if decay else 0.0


def _inverse_root(state: State, square: Tensor, beta2: float) -> Tensor:
    """Update the average of squared gradients, and return its inverse square root."""
    if _ROW not in state:
        average: Tensor = state["exp_avg_sq"]
        return average.mul_(beta2).add_(square, alpha=1.0 - beta2).rsqrt()
    rows, columns = state[_ROW], state[_COLUMN]
    rows.mul_(beta2).add_(square.mean(dim=-1), alpha=1.0 - beta2)
    columns.mul_(beta2).add_(square.mean(dim=-2), alpha=1.0 - beta2)
    row_factor = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt_()
    inverse: Tensor = row_factor.unsqueeze(-1) * columns.rsqrt().unsqueeze(-2)
    return inverse


def _update_together(group: Group, works: list[_Work]) -> None:
    """Update several parameters as `_update` does, with multi-tensor operations."""
    parameters = [work.parameter for work in works]
    grads, weights = [work.grad for work in works], [work.weight for work in works]
    states = [work.state for work in works]
    squares = list(_foreach_mul(grads, grads))
    _foreach_add_(squares, group["eps"][0])
    updates = _inverse_roots(states, squares, _beta2(group, states[0]))
    _foreach_mul_(updates, grads)
    limits = _rms_of_each(updates)
    _foreach_div_(limits, group["clip_threshold"])
    _foreach_clamp_min_(limits, 1.0)
    _foreach_div_(updates, limits)
    rates, decays = _rates_and_decays(group, weights, states)
    _foreach_mul_(updates, rates)
    if group["beta1"] is not None:
        averages = [state["exp_avg"] for state in states]
        _average_into(averages, updates, group["beta1"])
        updates = averages
    if group["weight_decay"] != 0:
        for weight, decay in zip(weights, decays, strict=True):
            weight.add_(weight, alpha=decay)
    _foreach_sub_(weights, updates)
    if weights[0] is not parameters[0]:
        _foreach_copy_(parameters, weights)


def _inverse_roots(states: list[State], squares: list[Tensor], beta2: float) -> list[Tensor]:
    """Do what `_inverse_root` does, for states with the same layout."""
    if _ROW not in states[0]:
        averages = [state["exp_avg_sq"] for state in states]
        _average_into(averages, squares, beta2)
        return list(_foreach_rsqrt(averages))
    rows, columns = [state[_ROW] for state in states], [state[_COLUMN] for state in states]
    _average_into(rows, [square.mean(dim=-1) for square in squares], beta2)
    _average_into(columns, [square.mean(dim=-2) for square in squares], beta2)
    row_factors = _foreach_div(rows, [row.mean(dim=-1, keepdim=True) for row in rows])
    _foreach_rsqrt_(row_factors)
    return [
        row.unsqueeze(-1) * column.unsqueeze(-2)
        for row, column in zip(row_factors, _foreach_rsqrt(columns), strict=True)
    ]


def _average_into(averages: list[Tensor], values: list[Tensor], beta: float) -> None:
    _foreach_mul_(averages, beta)
    _foreach_add_(averages, values, alpha=1.0 - beta)


def _rms_of_each(tensors: list[Tensor]) -> list[Tensor]:
    norms = [torch.linalg.vector_norm(tensor) for tensor in tensors]
    _foreach_div_(norms, [tensor.numel() ** 0.5 for tensor in tensors])
    return norms


def _rates_and_decays(
    group: Group, weights: list[Tensor], states: list[State]
) -> tuple[list[float], list[float]]:
    """Do what `_rate_and_decay` does, for states with the same step count.

    With `scale_parameter` it waits for the device once for each of the two lists.
    """
    rate, decay = _rate(group, states[0]), -group["weight_decay"]
    if not group["scale_parameter"]:
        return [rate] * len(states), [decay * rate] * len(states)
    sizes = _rms_of_each(weights)
    for state, size in zip(states, sizes, strict=True):
        state["RMS"] = size
    rms = torch.stack(sizes)
    return _scaled(group, rms, rate).tolist(), _scaled(group, rms, rate, decay).tolist()


def _chunks(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield lists of parameters that end once they have `_CHUNK_ELEMENTS` elements."""
    some: list[Tensor] = []
    elements = 0
    for parameter in parameters:
        some.append(parameter)
        elements += parameter.numel()
        if elements >= _CHUNK_ELEMENTS:
            yield some
            some, elements = [], 0
    if some:
        yield some


def _refuse_sparse(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.layout != torch.strided:
            raise UnsupportedError(
                "Adafactor does not support sparse gradients",
                where=f"the gradient of a parameter of shape {tuple(parameter.shape)}",
                fix="build the embedding with sparse=False",
            )


def _to_fp32(optimizer: Optimizer) -> None:
    """Convert loaded state to fp32: Transformers' class may have rounded it to half precision."""
    for state in optimizer.state.values():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                state[key] = _full_precision(value)
