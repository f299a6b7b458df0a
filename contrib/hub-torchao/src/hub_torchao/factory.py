"""Fixes for the optimizers of torchao 0.18."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

# The first step would import it, which fails if warnings are errors.
import torch._inductor.compile_fx
from torch._dynamo.utils import disable_cache_limit
from torchao import optim
from torchao.optim.adam import _AdamBase
from torchao.optim.subclass_4bit import OptimState4bit
from torchao.optim.subclass_8bit import OptimState8bit

from hub.errors import CheckpointError
from hub.repairs import seed_from, stepped_shape
from hub_torchao.update import update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.optim import Optimizer

    StateDict = dict[str, Any]


_ATTRIBUTES = ("block_size", "bf16_stochastic_round", "is_adamw")


class _Fixes(_AdamBase):  # type: ignore[misc]  # untyped
    """What hub changes in torchao's classes, which round with torch's global generators.

    Processes and resumed runs have these in different states. Here each update of a parameter is
    rounded by its name and its step.
    """

    param_groups: list[dict[str, Any]]
    state: dict[torch.Tensor, dict[str, Any]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if any, reevaluates the model."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        # Each pair of betas has kernels; upstream turns the limit off as well.
        with disable_cache_limit():
            for group in self.param_groups:
                names = group.get("param_names") or [""] * len(group["params"])
                for name, parameter in zip(names, group["params"], strict=True):
                    if parameter.grad is not None:
                        self._update(name, parameter, group)
        return loss

    def _update(self, name: str, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise RuntimeError("Sparse gradient is not supported")
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = self._new_buffer(parameter, signed=True)
            state["exp_avg_sq"] = self._new_buffer(parameter, signed=False)
        is_random = self.bf16_stochastic_round and parameter.dtype is torch.bfloat16
        seed = seed_from(f"{name} {int(state['step'])}") if is_random else None
        with _seeded(parameter.device, seed) if seed is not None else nullcontext():
            update(parameter, state, group, is_random=is_random)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs, where torch keeps groups and state only."""
        return {**super().__getstate__(), **{key: vars(self)[key] for key in _ATTRIBUTES}}


class AdamW4bit(_Fixes, optim.AdamW4bit):  # type: ignore[misc]  # untyped
    """torchao's class with 4-bit state."""


class AdamW8bit(_Fixes, optim.AdamW8bit):  # type: ignore[misc]  # untyped
    """torchao's class with 8-bit state."""


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Temporarily seed the generator that code for a device draws from, compiled or not."""
    is_cpu = device.type == "cpu"
    generator = torch.default_generator if is_cpu else torch.cuda.default_generators[device.index]
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


class _Kind(NamedTuple):
    """An optimizer and the tensor subclass that its state is made of."""

    optimizer: type[Optimizer]
    tensor: Any
    bits: int


_PARTS = ("codes", "scale", "qmap")


def _build(kind: _Kind, groups: list[dict[str, Any]], **arguments: Any) -> Optimizer:
    """Return an instance of upstream's class, with plain state dicts and any learning rates."""
    optimizer = kind.optimizer(groups, **arguments)
    optimizer.register_step_pre_hook(_make_rates_tensors)
    optimizer.register_load_state_dict_post_hook(_make_rates_tensors)
    optimizer.register_state_dict_post_hook(_taken_apart)

    def rebuilt(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        return _rebuilt(kind, optimizer, state_dict)

    optimizer.register_load_state_dict_pre_hook(rebuilt)
    return optimizer


adamw_4bit = partial(_build, _Kind(AdamW4bit, OptimState4bit, 4))
adamw_8bit = partial(_build, _Kind(AdamW8bit, OptimState8bit, 8))


def _make_rates_tensors(optimizer: Optimizer, *_: object) -> None:
    """Turn learning rates into tensors, as torchao does with the first ones (`add_param_group`).

    Its step raises for a number, which is what schedulers, users and checkpoints write.
    """
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], torch.Tensor):
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32)


def _taken_apart(_: Optimizer, state_dict: StateDict) -> StateDict:
    """Replace tensor subclasses by their tensors, and learning rates by numbers."""
    return {
        **state_dict,
        "state": {
            number: {key: _parts(value) for key, value in state.items()}
            for number, state in state_dict["state"].items()
        },
        "param_groups": [
            {**group, "lr": float(group["lr"])} for group in state_dict["param_groups"]
        ],
    }


def _parts(value: Any) -> Any:
    if not isinstance(value, OptimState4bit | OptimState8bit):
        return value
    return {**{part: getattr(value, part) for part in _PARTS}, "signed": value.signed}


def _rebuilt(kind: _Kind, optimizer: Optimizer, state_dict: StateDict) -> StateDict:
    """Rebuild tensor subclasses before torch casts state to the dtype of the parameter.

    The cast leaves their parts alone, but would round the parts by themselves. All tensors are
    copies: torch (2.13) would share them with the state dict, which may be a live one.
    """
    numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    states = dict(state_dict["state"])
    for number, parameter in zip(numbers, parameters, strict=False):  # torch compares the groups
        if number in states:
            states[number] = {
                key: _loaded(kind, key, value, parameter, stepped_shape(optimizer, parameter))
                for key, value in states[number].items()
            }
    return {**state_dict, "state": states}


def _loaded(kind: _Kind, key: str, value: Any, parameter: torch.Tensor, shape: torch.Size) -> Any:
    if key == "step":  # which upstream keeps on CPU, where powers of betas round as before
        return value.to("cpu", copy=True)
    saved = _parts(value)
    if not isinstance(saved, dict):
        return saved.to(parameter.device, copy=True)
    if saved["codes"].numel() * 8 != shape.numel() * kind.bits:
        raise CheckpointError(
            f"the checkpoint has {saved['codes'].numel()} bytes of codes for a parameter of "
            f"{shape.numel()} elements, which is not {kind.bits}-bit state of it",
            where=f"load_state_dict, {key}",
            fix="build the optimizer and the model that the checkpoint was saved from",
            plugin="hub-torchao",
        )
    own = [shape] if kind.tensor is OptimState4bit else []
    parts = [saved[part].to(parameter.device, copy=True) for part in _PARTS]
    return kind.tensor(*parts, saved["signed"], *own, dtype=parameter.dtype)
