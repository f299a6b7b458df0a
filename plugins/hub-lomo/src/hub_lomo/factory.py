"""Fixes for the optimizers of lomo_optim 0.1.1: a `step()`, which hub's engine takes apart."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lomo_optim
import torch
from torch.optim import Optimizer

from hub.errors import HubError, UnsupportedError
from hub.repairs import keep_state_dtypes
from hub.updates.stepping import StepWithClosure
from hub_lomo.arguments import LomoArguments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    Group = dict[str, Any]

PLUGIN = "hub-lomo"
_MATRIX = 2
"""Second moments are factored from this many dimensions on."""
_EXACT = (torch.float32, torch.float64)
_SCALING = ("loss_scale", "loss_scale_window")


class _InBackward(StepWithClosure, Optimizer):
    """What both have: torch's constructor, a `step()`, and upstream's API over hub's engine.

    Upstream's constructor (lomo_optim 0.1.1) is not called: it takes a module, places hooks that
    visit all parameters for each gradient and update at a rate that no scheduler reaches, and
    AdaLomo's needs CUDA.

    With fp16 weights and a `loss_scale`, a step is skipped when a gradient overflows, which has to
    be known before the first update. Only `fused_backward` can know it, from a backward pass that
    updates nothing, so `loss.backward()` is refused then. Without fp16 weights groups have neither
    `loss_scale` nor its window.
    """

    hub_engine: Any = None

    def __init__(self, params: list[Group], **arguments: Any) -> None:
        if all(p.dtype is not torch.float16 for group in params for p in group["params"]):
            arguments = {key: arguments[key] for key in arguments if key not in _SCALING}
        Optimizer.__init__(self, params, arguments)

    def _update_all(self) -> None:
        """Update what has a gradient.

        Raises:
            UnsupportedError: fp16 gradients are not scaled, and scaling is not turned off.
        """
        scale = self.hub_engine.loss_scale if self.hub_engine is not None else None
        for group in self.param_groups:
            may_lack_scale = scale is None and group.get("loss_scale") is not None
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is not None:
                    if may_lack_scale and _is_scaled(group, parameter):
                        raise _unscaled()
                    if scale is not None or grad.dtype not in _EXACT:
                        grad = _exact(grad, scale)
                    self._update(parameter, grad, group)
        # torch's schedulers warn if no step was taken, and Accelerate never calls `step`.
        self._opt_called = True

    def fused_backward(self, loss: Tensor, lr: float | None = None) -> None:
        """Compute a loss's gradients, and update each parameter as soon as it has its own.

        With `clipping="exact"` the norm is measured first, unless `grad_norm` has been called.

        Args:
            loss: A scalar.
            lr: The learning rate of the first group; the others keep their proportion to it. None:
                the groups' learning rates.

        Raises:
            OptimArgsError: `lr` is not a number, or is negative.
            UnsupportedError: The loss of accumulated micro-batches would have to be scaled, or hub
                has been detached.
            HubError: A gradient is not finite, even at a loss scale of 1.
        """
        engine = self._engine()
        engine.end_step_if_begun()
        if lr is not None:
            self._take_lr(lr)
        if self._scales():
            self._backward_scaled(loss)
            return
        if engine.settings.clipping == "exact" and not engine.knows_total_norm:
            engine.measure(loss)
        loss.backward()  # type: ignore[no-untyped-call]

    def grad_norm(self, loss: Tensor) -> Tensor:
        """Return the norm of a loss's gradients, and clip the next ones by it if that was asked."""
        with self._scaled(loss) as scaled:
            norm: Tensor = self._engine().measure(scaled)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last backward pass, also if nobody called `step()` since."""
        if self.hub_engine is not None:
            self.hub_engine.end_step_if_begun()
        saved: dict[str, Any] = super().state_dict()
        return saved

    def _update(self, parameter: Tensor, grad: Tensor, group: Group) -> None:
        raise NotImplementedError

    def _engine(self) -> Any:
        if self.hub_engine is None:
            raise UnsupportedError(
                "the optimizer no longer steps inside the backward pass",
                where="fused_backward",
                fix="call loss.backward() and optimizer.step(), or build a new optimizer",
                plugin=PLUGIN,
            )
        return self.hub_engine

    def _take_lr(self, lr: float) -> None:
        """Give the first group a learning rate, and the others their share of it.

        As in torch's schedulers, `initial_lr` is what the factors multiply.
        """
        lr = LomoArguments.checked("fused_backward", lr=lr).lr
        if lr == self.param_groups[0]["lr"]:
            return
        initial = [group.setdefault("initial_lr", group["lr"]) for group in self.param_groups]
        for group, own in zip(self.param_groups, initial, strict=True):
            group["lr"] = lr * (own / initial[0]) if initial[0] else lr

    # Loss scaling.

    def _scales(self) -> bool:
        pairs = ((group, p) for group in self.param_groups for p in group["params"])
        return any(_is_scaled(group, parameter) for group, parameter in pairs)

    @contextmanager
    def _scaled(self, loss: Tensor) -> Iterator[Tensor]:
        """Yield the loss times its scale, by which the engine and `step` divide the gradients."""
        if not self._scales():
            yield loss
            return
        engine = self._engine()
        engine.loss_scale = self.param_groups[0]["loss_scale"]
        try:
            yield loss * engine.loss_scale
        finally:
            engine.loss_scale = None

    def _backward_scaled(self, loss: Tensor) -> None:
        """Step at the current loss scale unless a gradient overflows, and update the scale.

        As in torch's GradScaler. Upstream's DynamicLossScaler never raises its scale again:
        lomo_optim 0.1.1 calls `update_scale` for overflows only.
        """
        engine = self._engine()
        if engine.settings.accumulation > 1:
            raise UnsupportedError(
                "overflow in gradients that accumulate over micro-batches cannot be seen before "
                "the last of them",
                where="gradient_accumulation_steps",
                fix="use one batch per step, bf16 weights, or loss_scale=None",
                plugin=PLUGIN,
            )
        scaling = self.param_groups[0]
        with self._scaled(loss) as scaled:
            finite = bool(engine.measure(scaled).isfinite())
            if finite:
                scaled.backward()  # type: ignore[no-untyped-call]
        scale, steps = scaling["loss_scale"], scaling.get("loss_scale_steps", 0) + 1
        if not finite:
            if scale <= 1:
                raise HubError(
                    "gradients are infinite or not a number, even without loss scaling",
                    where="fused_backward",
                    fix="lower the learning rate, or keep the weights in bf16 or fp32",
                    plugin=PLUGIN,
                )
            scale, steps = max(1.0, scale / 2), 0
        elif steps == scaling["loss_scale_window"]:
            scale, steps = scale * 2, 0
        for group in self.param_groups:
            group.update(loss_scale=scale, loss_scale_steps=steps)


class Lomo(_InBackward, lomo_optim.Lomo):  # type: ignore[misc]  # untyped
    """LOMO (https://arxiv.org/abs/2306.09782): SGD, computed in fp32 for narrower weights.

    Rounds as `fuse_update` of lomo_optim 0.1.1 (`lomo.py`) does.
    """

    def _update(self, parameter: Tensor, grad: Tensor, group: Group) -> None:
        weight = parameter if parameter.dtype is grad.dtype else parameter.to(grad.dtype)
        if group["weight_decay"]:
            weight.mul_(1.0 - group["lr"] * group["weight_decay"])
        weight.add_(grad, alpha=-group["lr"])
        if weight is not parameter:
            parameter.copy_(weight)


class AdaLomo(_InBackward, lomo_optim.AdaLomo):  # type: ignore[misc]  # untyped
    """AdaLomo (https://arxiv.org/abs/2310.10195), with its second moments in `self.state`.

    They are fp32, or fp64 for fp64 weights: `exp_avg_sq_row` of shape (..., n) and `exp_avg_sq_col`
    of shape (..., m) for a parameter of shape (..., n, m), and `exp_avg_sq` of the parameter's
    shape below two dimensions. Rounds as `fuse_update` of lomo_optim 0.1.1 (`adalomo.py`) does.
    """

    def __init__(self, params: Any, **arguments: Any) -> None:
        super().__init__(params, **arguments)
        keep_state_dtypes(self)

    def _update(self, parameter: Tensor, grad: Tensor, group: Group) -> None:
        weight = parameter.to(grad.dtype)
        update = self._direction(parameter, grad, group)
        update.div_((self._rms(update) / group["clip_threshold"]).clamp_(min=1.0))
        size, minimum = self._rms(weight), group["eps"][1]
        lr = torch.where(size > minimum, size * group["lr"], minimum * group["lr"])
        if group["weight_decay"]:
            weight.mul_(1.0 - lr * group["weight_decay"])
        # Not `add_` with `alpha`: that would wait for a GPU to compute the learning rate.
        parameter.copy_(weight.addcmul_(update, lr, value=-1))

    def _direction(self, parameter: Tensor, grad: Tensor, group: Group) -> Tensor:
        """Return the gradient divided by the root of its running mean square."""
        state = self.state[parameter]
        if not state:
            state.update(step=0, **_moments(grad))
        state["step"] += 1
        kept = 1.0 - math.pow(state["step"], group["decay_rate"])
        square = grad**2 + group["eps"][0]
        update: Tensor
        if "exp_avg_sq" in state:
            _average(state["exp_avg_sq"], square, kept)
            update = state["exp_avg_sq"].rsqrt()
        else:
            row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
            _average(row, square.mean(dim=-1), kept)
            _average(column, square.mean(dim=-2), kept)
            update = self._approx_sq_grad(row, column)
        return update.mul_(grad)


def _moments(grad: Tensor) -> dict[str, Tensor]:
    if grad.ndim < _MATRIX:
        return {"exp_avg_sq": torch.zeros_like(grad)}
    return {
        "exp_avg_sq_row": grad.new_zeros(grad.shape[:-1]),
        "exp_avg_sq_col": grad.new_zeros(grad.shape[:-2] + grad.shape[-1:]),
    }


def _average(mean: Tensor, value: Tensor, kept: float) -> None:
    mean.mul_(kept).add_(value, alpha=1.0 - kept)


def _exact(grad: Tensor, scale: float | None) -> Tensor:
    """Return a gradient divided by the loss's scale, in fp32 if its dtype is narrower."""
    if grad.dtype not in _EXACT:
        grad = grad.float()
    return grad if scale is None else grad / scale


def _is_scaled(group: Group, parameter: Tensor) -> bool:
    return parameter.dtype is torch.float16 and group.get("loss_scale") is not None


def _unscaled() -> UnsupportedError:
    return UnsupportedError(
        "fp16 gradients below 6e-8 vanish, and loss.backward() does not scale the loss",
        where="loss.backward()",
        fix="call optimizer.fused_backward(loss), or build with loss_scale=None",
        plugin=PLUGIN,
    )
