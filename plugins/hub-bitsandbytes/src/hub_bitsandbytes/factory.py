"""Fixes for the optimizers of bitsandbytes 0.50.2: each class of `bitsandbytes.optim`, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes import optim
from bitsandbytes.functional import GlobalPageManager
from bitsandbytes.optim.optimizer import GlobalOptimManager, Optimizer2State, Optimizer8bit

from hub.errors import CheckpointError
from hub.repairs import HookedLoading, stepped_shape
from hub_bitsandbytes.names import ROWS, keeps_32_bits

if TYPE_CHECKING:
    from torch import Tensor

    Group = dict[str, Any]
    State = dict[str, Any]


BUFFERS = ("state1", "state2")


class Fixes:
    """What hub changes in every class of bitsandbytes 0.50.2 (`optim/optimizer.py`).

    A base before the upstream class, whose `step` and updates it leaves alone.
    """

    param_groups: list[Group]
    state: dict[Tensor, State]
    is_paged: bool
    mng: Any
    page_mng: Any

    def __init__(
        self, params: list[Group], *, embeddings: frozenset[str], **arguments: Any
    ) -> None:
        super().__init__(params, **arguments)  # type: ignore[call-arg]
        self.embeddings = embeddings  # names, because sharding replaces parameters
        self._use_own_managers()

    def _use_own_managers(self) -> None:
        """Replace the managers that all optimizers of a process share by empty ones.

        The shared manager applies overrides by position to whatever optimizer comes next, and the
        paging one keeps buffers alive that nobody uses any longer.
        """
        self.mng = GlobalOptimManager.__new__(GlobalOptimManager)
        self.mng.initialize()
        self.page_mng = GlobalPageManager.__new__(GlobalPageManager)
        self.page_mng.initialize()

    def get_config(self, gindex: int, pindex: int, group: Group) -> dict[str, Any]:
        """Return the settings of one parameter, with 32 bits if it must not have 8."""
        config: dict[str, Any] = super().get_config(gindex, pindex, group)  # type: ignore[misc]
        if config["optim_bits"] == 8 and keeps_32_bits(  # noqa: PLR2004
            group["params"][pindex],
            config["min_8bit_size"],
            is_embedding=name_of(group, pindex) in self.embeddings,
            whole_blocks=isinstance(self, optim.AdEMAMix),
        ):
            config["optim_bits"] = 32
        return config

    def get_state_buffer(self, p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Allocate zeros in the parameter's shape, paged only where bitsandbytes can page.

        Always contiguous: the CUDA kernels ignore strides.
        """
        if not self._is_paged_on(p):
            return torch.zeros(p.shape, dtype=dtype, device=p.device)
        return super().get_state_buffer(p, dtype).contiguous()  # type: ignore[misc,no-any-return]

    def _get_state_double_buffer(self, p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Allocate AdEMAMix's first buffer likewise; upstream also pages on CPU, and fails."""
        if not self._is_paged_on(p):
            return torch.zeros((2, *p.shape), dtype=dtype, device=p.device)
        return super()._get_state_double_buffer(p, dtype)  # type: ignore[misc,no-any-return]

    def _is_paged_on(self, p: Tensor) -> bool:
        return self.is_paged and p.device.type != "cpu"

    def update_step(self, group: Group, p: Tensor, gindex: int, pindex: int) -> None:
        """Update a parameter in place; upstream moves it to other storage to make it contiguous.

        If the parameter or its gradient is not contiguous, a contiguous stand-in borrows the state.
        """
        grad = p.grad
        if p.is_contiguous() and grad.is_contiguous():  # type: ignore[union-attr]
            super().update_step(group, p, gindex, pindex)  # type: ignore[misc]
            return
        stand_in = p.detach().contiguous()
        stand_in.grad = grad
        self.state[stand_in] = self.state[p]
        try:
            super().update_step(group, stand_in, gindex, pindex)  # type: ignore[misc]
        finally:
            del self.state[stand_in]
        if not p.is_contiguous():
            p.copy_(stand_in)

    def state_dict(self) -> dict[str, Any]:
        """Return upstream's state dict, without the marks that paged tensors carry.

        `torch.save` saves such attributes, and a tensor marked as paged that is not crashes the
        kernels.
        """
        saved: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        for state in saved["state"].values():
            wrapped = state.get(Optimizer8bit._FSDP_WRAPPED_QUANT_STATE_KEY, {})  # noqa: SLF001
            for key, value in wrapped.items():
                wrapped[key] = value.detach()
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load state that this optimizer could have saved; `__setstate__` puts it in place.

        Raises:
            CheckpointError: The state is of another optimizer, or in another number of bits.
        """
        self._check(state_dict)
        super().load_state_dict(state_dict, move_to_device=False)  # type: ignore[misc]

    def _check(self, state_dict: dict[str, Any]) -> None:
        pairs = zip(self.param_groups, state_dict["param_groups"], strict=False)
        for gindex, (group, saved_group) in enumerate(pairs):
            for pindex, (p, number) in enumerate(
                zip(group["params"], saved_group["params"], strict=False)
            ):
                saved = unwrapped(state_dict["state"].get(number, {}))
                problem = self._misfit(p, saved, self.get_config(gindex, pindex, group))
                if saved and problem:
                    raise CheckpointError(
                        f"the checkpoint does not fit {type(self).__name__}: {problem}",
                        where=f"load_state_dict, {name_of(group, pindex)}",
                        fix="build the optimizer that the checkpoint is of, with the arguments it "
                        "had, or start without optimizer state",
                        plugin="hub-bitsandbytes",
                    )

    def _misfit(self, p: Tensor, saved: State, config: dict[str, Any]) -> str:
        """Return what is wrong with a parameter's saved state, or nothing."""
        expected = BUFFERS if isinstance(self, Optimizer2State) else BUFFERS[:1]
        found = tuple(key for key in BUFFERS if key in saved)
        if found != expected:
            return f"it holds {', '.join(map(str, saved))}, where {', '.join(expected)} is needed"
        stepped = stepped_shape(self, p)  # type: ignore[arg-type]  # a base of optimizers
        shape = (2, *stepped) if isinstance(self, optim.AdEMAMix) else tuple(stepped)
        if tuple(saved["state1"].shape) != shape:
            return f"its state1 has the shape {tuple(saved['state1'].shape)}, not {shape}"
        bits = 8 if saved["state1"].dtype == torch.uint8 else 32
        if bits != config["optim_bits"]:
            return f"it holds {bits}-bit state, where {config['optim_bits']}-bit state is needed"
        return ""

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; torch keeps three attributes, and drops upstream's."""
        kept = {key: vars(self)[key] for key in _ATTRIBUTES}
        return {**super().__getstate__(), **kept}  # type: ignore[dict-item]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over loaded or copied state, and put its tensors where the kernels need them."""
        super().__setstate__(state)  # type: ignore[misc]
        self._use_own_managers()
        for group in self.param_groups:
            for p in group["params"]:
                values = self.state.get(p, {})
                for key, value in values.items():
                    if isinstance(value, torch.Tensor):
                        values[key] = self._placed(key, value, p)

    def _placed(self, key: str, value: Tensor, p: Tensor) -> Tensor:
        """Return a state tensor on the parameter's device, or back in unified memory.

        Upstream's loading leaves paged state on the GPU for good.
        """
        value = value.detach().to(p.device)
        if key not in BUFFERS or not self._is_paged_on(p):
            return value
        if value.ndim == p.ndim:
            return self.get_state_buffer(value, value.dtype).copy_(value)
        return self._get_state_double_buffer(value[0], value.dtype).copy_(value)


_ATTRIBUTES = (
    "initialized",
    "name2qmap",
    "is_paged",
    "non_castable_tensor_keys",
    "args",
    "optimizer_name",
    "embeddings",
)


def unwrapped(state: State) -> State:
    """Return one parameter's saved state without the wrapper that hides it from FSDP1."""
    return {**state, **state.get(Optimizer8bit._FSDP_WRAPPED_QUANT_STATE_KEY, {})}  # noqa: SLF001


def name_of(group: Group, pindex: int) -> str:
    """Return a parameter's name, where the group knows it."""
    names = group.get("param_names", ())
    return names[pindex] if pindex < len(names) else f"parameter {pindex}"


def _subclass(upstream: str) -> type:
    """Return a subclass of one class of `bitsandbytes.optim` with the fixes, of the same name."""
    bases = (HookedLoading, Fixes, getattr(optim, upstream))
    return type(upstream, bases, {"__module__": __name__, "__doc__": Fixes.__doc__})


CLASSES = {row.upstream: _subclass(row.upstream) for row in ROWS.values()}
globals().update(CLASSES)  # where hooks and pickle look for them
