"""Fixes for the optimizers of flashoptim 0.1.4."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import flashoptim
import torch
from flashoptim.optimizers import quantize
from torch.optim import Optimizer

from hub.errors import CheckpointError
from hub.quiet import no_warnings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter

    Group = dict[str, Any]
    State = dict[str, Any]


class _Fixes(flashoptim.FlashOptimizer):  # type: ignore[misc]  # untyped
    """Fixes for flashoptim 0.1.4 (optimizers.py), as a base before one of its classes."""

    _decouple_lr: bool

    def __init__(self, params: list[Group], **arguments: Any) -> None:
        # What upstream says about master_weight_bits=None, the plan says.
        with no_warnings(message="master_weight_bits=None"):
            super().__init__(params, **arguments)
        self._note_reference_rates()
        self.register_load_state_dict_pre_hook(_Fixes._prepare_loading)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group without `initial_lr`, so that schedulers start from the group's rate.

        Upstream gives every group the constructor's rate as `initial_lr`, to which torch's
        schedulers reset it, whatever rate the group was built with.
        """
        self.defaults.pop("initial_lr", None)
        super().add_param_group(param_group)
        self._note_reference_rates()

    def _note_reference_rates(self) -> None:
        """Keep what `decouple_lr` compares a group's rate with until a scheduler sets it."""
        if self._decouple_lr:
            for group in self.param_groups:
                group.setdefault("reference_lr", group["lr"])

    def _do_step(
        self,
        param: Tensor,
        grad: Tensor,
        errors: Tensor | None,
        param_state: State,
        hparams: Group,
    ) -> None:
        if self._decouple_lr and "initial_lr" not in hparams:
            hparams = {**hparams, "initial_lr": hparams["reference_lr"]}
        if self._would_write_into(grad, hparams):
            grad = grad.clone()
        super()._do_step(param, grad, errors, param_state, hparams)

    @staticmethod
    def _wrap_state_as_dtensor(state: State, param: Any) -> None:
        """Make DTensors of this rank's state to be saved, of uneven shards too.

        Upstream infers the whole shape from this rank's, as if all had as many rows.
        """
        if not hasattr(param, "device_mesh"):
            return
        from torch.distributed.tensor import DTensor

        rows = param.to_local().shape
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape == rows:
                state[key] = DTensor.from_local(
                    value,
                    param.device_mesh,
                    param.placements,
                    run_check=False,
                    shape=param.shape,
                    stride=param.stride(),
                )
        values = [v for v in state.values() if isinstance(v, torch.Tensor)]
        if any(v.ndim and type(v) is not DTensor for v in values):
            flashoptim.FlashOptimizer._wrap_state_as_dtensor(state, param)  # noqa: SLF001 - scales

    def _would_write_into(self, grad: Tensor, group: Group) -> bool:
        """Whether upstream adds the L2 penalty to this gradient in place."""
        in_kernel = self._fused and group.get("momentum", 1) > 0
        coupled = not getattr(self, "_decoupled", True)  # Lion has no such attribute
        return (
            coupled and group["weight_decay"] > 0 and grad.dtype is torch.float32 and not in_kernel
        )

    def load_state_dict(self, state_dict: State) -> None:
        """Load as torch does, after `_prepare_loading`.

        Upstream's method changes the caller's dictionary and writes `initial_lr` into groups.
        """
        Optimizer.load_state_dict(self, state_dict)

    def _prepare_loading(self, state_dict: State) -> State:
        """Refuse state of another layout, and quantize what was saved in fp32 (a load pre-hook).

        torch would round fp32 state to the parameter's dtype. Upstream quantizes it first too, but
        by one dtype for all parameters: beside a bf16 one it destroys the scales of all others.
        """
        saved = {
            number: group for group in state_dict["param_groups"] for number in group["params"]
        }
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        state = dict(state_dict["state"])
        for (number, group), parameter in zip(saved.items(), parameters, strict=True):
            if number in state:
                self._check_layout(group, state[number], parameter)
                state[number] = self._quantized(state[number], parameter)
        return {**state_dict, "state": state}

    def _check_layout(self, group: Group, state: State, parameter: Parameter) -> None:
        """Refuse what upstream would mistake for state of its layout.

        hub's checkpoints say which arguments differ; this is for those of the upstream classes.
        """
        own = {"quantize": self._quantize, "master_bytewidth": self._master_bytewidth}
        theirs = {key: group.get(key, value) for key, value in own.items()}
        if theirs != own:
            problem = f"{theirs} in the checkpoint, {own} here"
        elif "error_bits" in state and state["error_bits"].dtype != parameter.dtype:
            problem = f"error bits of {state['error_bits'].dtype} weights, {parameter.dtype} here"
        else:
            return
        raise CheckpointError(
            f"the checkpoint's state has another layout: {problem}",
            where="load_state_dict",
            fix="build with the arguments, device and dtype of the checkpoint, or start without "
            "optimizer state",
            plugin="hub-flashoptim",
        )

    def _quantized(self, state: State, parameter: Parameter) -> State:
        """Return the state with moments quantized, in the form that `state_dict` saves."""
        if not self._quantize:
            return state
        result = dict(state)
        for key, spec in self.quantized_state_spec.items():
            if key in state:
                moment = self._get_local_tensor(result.pop(key)).to(parameter.device)
                values, scales = quantize(
                    moment, signed=spec.signed, sqrt=spec.sqrt, softsign=spec.softsign
                )
                # Seen as bf16, fp16 scales survive torch's cast to the dtype of a bf16 parameter.
                is_bf16 = parameter.dtype is torch.bfloat16
                result[f"{key}::quantized"] = values
                result[f"{key}::scales"] = scales.view(torch.bfloat16) if is_bf16 else scales
        return result

    def __getstate__(self) -> State:
        """Return also upstream's settings, which torch leaves out of copies and pickles."""
        settings = {
            key: value for key, value in vars(self).items() if isinstance(value, bool | int)
        }
        return {**settings, **super().__getstate__()}

    def __setstate__(self, state: State) -> None:
        """Take over the state of `load_state_dict`, or everything if this is to be a copy."""
        if "defaults" in state:
            self._transient_state: dict[int, Any] = {}
            Optimizer.__setstate__(self, state)
            self.register_load_state_dict_pre_hook(_Fixes._prepare_loading)
            return
        # Upstream would decide which state SGD has from groups that it has not replaced yet.
        self.param_groups = state["param_groups"]
        self.__dict__.pop("quantized_state_spec", None)
        super().__setstate__(state)

    @torch.no_grad()
    def set_fp32_model_state_dict(self, model: Module, fp32_state_dict: dict[str, Tensor]) -> None:
        """Set weights and their error bits, which upstream drops before the first step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._ensure_state_initialized(parameter, group)
        super().set_fp32_model_state_dict(model, fp32_state_dict)


class FlashAdam(_Fixes, flashoptim.FlashAdam):  # type: ignore[misc]
    """Upstream's class, with the fixes."""


class FlashAdamW(_Fixes, flashoptim.FlashAdamW):  # type: ignore[misc]
    """Upstream's class, with the fixes."""


class FlashSGD(_Fixes, flashoptim.FlashSGD):  # type: ignore[misc]
    """Upstream's class, with the fixes."""


class FlashSGDW(_Fixes, flashoptim.FlashSGDW):  # type: ignore[misc]
    """Upstream's class, with the fixes."""


class FlashLion(_Fixes, flashoptim.FlashLion):  # type: ignore[misc]
    """Upstream's class, with the fixes."""
