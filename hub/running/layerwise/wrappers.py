"""What hub does to DDP, and asks FSDP, so that a gradient is averaged exactly once."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import Tensor
    from torch.nn import Module

    from hub.running.layerwise.settings import Slot

_IGNORED = "_ddp_params_and_buffers_to_ignore"
"""The attribute of a module in which DDP (torch 2.13) looks for the names to leave alone."""


class HiddenFromDdp:
    """The parameters that DDP leaves alone, so that it neither averages nor stores gradients.

    DDP refuses a model without any parameter for it. If another optimizer steps no others after the
    backward pass, the smallest one stays. It would be averaged twice, but in the first forward pass
    DDP's own hooks are removed.

    Args:
        model: The model that DDP may wrap later; held weakly.
        parameters: The parameters to hide.
    """

    def __init__(self, model: Module, parameters: Sequence[Tensor]) -> None:
        self._model = weakref.ref(model)
        self._ddp: Callable[[], Any] = _nothing
        self.names: list[str] = []
        """Their names, tied ones included, in every form that DDP looks up."""
        self._hidden: list[weakref.ref[Tensor]] = []
        self._leaves_one = False
        """Whether one of the parameters stays."""
        self.replace(parameters)

    def replace(self, parameters: Sequence[Tensor]) -> None:
        """Hide these parameters instead, from a wrapper that is still to come."""
        model = self._model()
        if model is None or self._ddp() is not None:
            return
        self._stop_ignoring()
        self._leaves_one = not _others(model, parameters)
        left = min(parameters, key=torch.Tensor.numel) if self._leaves_one else None
        hidden = [p for p in parameters if p is not left]
        self._hidden = [weakref.ref(p) for p in hidden]
        self.names[:] = _names(model, {id(p) for p in hidden})
        setattr(model, _IGNORED, _NotCopied([*getattr(model, _IGNORED, ()), *self.names]))

    def is_from(self, ddp: Any) -> bool:
        """Return whether this DDP wrapper, if any, leaves the parameters alone by now."""
        return ddp is None or ddp is self._ddp()

    def hide_from(self, ddp: Any) -> None:
        """Stop DDP from averaging."""
        if not self.is_from(ddp):
            if self._leaves_one:
                ddp._remove_autograd_hooks()  # noqa: SLF001 - no public equivalent
                # A static graph's first backward pass averages without hooks.
                ddp._static_graph_delay_allreduce_enqueued = True  # noqa: SLF001
            self._ddp = weakref.ref(ddp)

    def parameters(self) -> list[Tensor]:
        """Return the parameters whose weights DDP left as they were; none without DDP."""
        found = (reference() for reference in self._hidden if self._ddp() is not None)
        return [p for p in found if p is not None]

    def remove(self) -> None:
        """Let DDP average these parameters again."""
        ddp = self._ddp()
        self._stop_ignoring()
        if ddp is not None:
            _average_again(ddp, self.names)

    def _stop_ignoring(self) -> None:
        model: Any = self._model()
        if model is None or not hasattr(model, _IGNORED):
            return
        rest = [name for name in getattr(model, _IGNORED) if name not in self.names]
        setattr(model, _IGNORED, _NotCopied(rest))
        if not rest:
            delattr(model, _IGNORED)


def _others(model: Module, parameters: Sequence[Tensor]) -> bool:
    """Whether a model has trainable parameters besides these, and besides what DDP leaves alone."""
    ignored, own = set(getattr(model, _IGNORED, ())), {id(p) for p in parameters}
    return any(
        p.requires_grad and id(p) not in own and name not in ignored
        for name, p in model.named_parameters()
    )


class _NotCopied(list[str]):
    """A list that is empty in copies of the model, from which DDP has to hide nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ()


def active_ddp() -> Any:
    """Return the DDP wrapper whose forward pass is running, if any."""
    return torch.nn.parallel.DistributedDataParallel._active_ddp_module  # noqa: SLF001 - no public equivalent


def check_wrapper(name: str, slots: Collection[Slot], ddp: Any, hidden: Collection[str]) -> None:
    """Check that no wrapper averages gradients where hub does.

    Args:
        name: The optimizer's name.
        slots: Its parameters.
        ddp: The DDP wrapper of the running forward pass, if any.
        hidden: The names that DDP has to leave alone.

    Raises:
        UnsupportedError: One does.
    """
    parameters = {id(slot.parameter): slot.name for slot in slots}
    if ddp is None:
        return
    if any(hasattr(slot.parameter, "device_mesh") for slot in slots):
        raise _refusal(
            name, "DDP wraps a model that is sharded as well", "model", "use fully_shard's HSDP"
        )
    reduced = [parameters[id(p)] for p in ddp._module_parameters if id(p) in parameters]  # noqa: SLF001
    if len(reduced) > 1 or not set(hidden) <= ddp.parameters_to_ignore:
        raise wrapped_before(name, where=reduced[0] if reduced else name)


def check_not_joining(name: str, ddp: Any) -> None:
    """Check that no process may run out of data before the others, as inside `ddp.join()`.

    Raises:
        UnsupportedError: One may; it would answer for DDP's averages, but not for hub's.
    """
    if ddp._join_config.enable:  # noqa: SLF001 - no public equivalent
        raise _refusal(
            name,
            "a process whose data has ended averages nothing with the others",
            "DistributedDataParallel.join",
            "give all processes the same number of batches",
        )


def wrapped_before(name: str, where: str) -> UnsupportedError:
    """Return the error for a model that DDP already wraps."""
    return _refusal(
        name,
        "DDP wrapped the model before hub.build, and holds all gradients until they are averaged",
        where,
        "build for the model that DDP is about to wrap, or use the optimizer's eager form",
    )


def synchronizes(model: Module) -> bool:
    """Return whether FSDP2 averages the gradients of the next backward pass.

    It does not after `set_requires_gradient_sync(False)`, which has no getter in torch 2.13.
    """
    from torch.distributed.fsdp import FSDPModule

    return all(
        group.reduce_grads and group.all_reduce_grads
        for module in model.modules()
        if isinstance(module, FSDPModule)
        for group in _parameter_groups(module)
    )


def _parameter_groups(module: Any) -> list[Any]:
    state = module._get_fsdp_state()  # noqa: SLF001
    groups = getattr(state, "_fsdp_param_groups", None)
    if groups is None:  # torch < 2.13
        groups = [state._fsdp_param_group]  # noqa: SLF001
    return [group for group in groups if group is not None]


def _average_again(ddp: Any, names: Collection[str]) -> None:
    """Let DDP average parameters that it has ignored, as its own `__setstate__` (torch 2.13)."""
    ddp.parameters_to_ignore -= set(names)
    ddp._module_parameters = [  # noqa: SLF001
        p for name, p in ddp.module.named_parameters() if name not in ddp.parameters_to_ignore
    ]
    parameters, sparse = ddp._build_params_for_reducer()  # noqa: SLF001
    named = ddp._build_debug_param_to_name_mapping(parameters)  # noqa: SLF001
    ddp._ddp_init_helper(parameters, sparse, named, ddp.static_graph)  # noqa: SLF001
    for hook, state in ddp._comm_hooks:  # noqa: SLF001
        torch.distributed._register_comm_hook(ddp.reducer, state, hook)  # type: ignore[attr-defined]  # noqa: SLF001
    if ddp.static_graph:
        ddp._static_graph_delay_allreduce_enqueued = False  # noqa: SLF001
        ddp.reducer._set_static_graph()  # noqa: SLF001


def _names(model: Module, ids: Collection[int]) -> list[str]:
    """Return parameters' names; DDP writes the root's own also as ".name".

    A compiled model, whose attributes are those of the model inside, has a prefix.
    """
    return [
        form
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in ids
        for form in (name, f"_orig_mod.{name}", *(() if "." in name else (f".{name}",)))
    ]


def _refusal(name: str, reason: str, where: str, fix: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} updates in the backward pass, and {reason}", where=where, fix=fix
    )


def _nothing() -> None:
    return None
