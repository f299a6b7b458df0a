"""Several processes: each gradient is averaged over them before its parameter is updated.

| the model | who averages |
|---|---|
| DDP wraps it after the build | hub, over the processes of DDP, which leaves the parameters alone |
| FSDP2 shards it | FSDP2, before the gradient arrives |
| neither | hub, over all processes |

Which of these it is shows in the first forward pass. There hub also gives all processes the weights
of rank 0, as DDP does with the parameters that it averages.

Processes whose gradients come in different orders would mix them, or wait for each other forever.
So before each average they exchange which gradient it is, and raise the same error if they differ.
They also exchange that they are at the end of a backward pass and at `step()`.
"""

from __future__ import annotations

import weakref
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from hub.errors import HubError, UnsupportedError
from hub.running.layerwise.wrappers import (
    HiddenFromDdp,
    active_ddp,
    check_not_joining,
    check_wrapper,
    synchronizes,
)
from hub.running.train_eval.hooks import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

    from hub.running.layerwise.settings import Slot
    from hub.running.sharded.late import LateSharding


class Event(IntEnum):
    """What a process has arrived at."""

    GRADIENT = 0
    NORM = 1
    END_OF_PASS = 2
    STEP = 3
    FAILURE = 4


class OneProcess:
    """The processes of a training that has only one."""

    passes = 1
    """The number of backward passes that an arriving gradient is the sum of."""

    def __init__(self, name: str) -> None:
        self.name = name
        """The optimizer's name, for messages."""

    def begin_pass(self) -> None:
        """Begin a backward pass.

        Raises:
            UnsupportedError: It cannot be averaged.
        """
        if _several():
            raise UnsupportedError(
                "torch.distributed was initialized after hub.build",
                where=self.name,
                fix="call init_process_group before hub.build",
            )

    def average(self, slot: Slot) -> None:
        """Replace a gradient by its mean over all processes.

        Raises:
            UnsupportedError: Another process has arrived at something else.
            HubError: An update has failed there.
        """

    def averaged(self, slot: Slot) -> Tensor:
        """Return the mean of a gradient over all processes, and leave the gradient as it is."""
        return slot.gradient

    def fail(self, error: HubError) -> None:
        """Raise the error of an update, on every process."""
        raise error

    def end_step(self) -> None:
        """End a step, on every process."""

    def forget(self) -> None:
        """Look again who averages, because parameters have been added or replaced."""

    def remove(self) -> None:
        """Remove everything from the model."""


class Processes(OneProcess):
    """The processes that train one model.

    Args:
        optimizer: The optimizer; held weakly.
        model: The model; held weakly.
        late: Finds the parameters that sharding has put in the place of others.
        slots: The engine's, which all processes have in the same order.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: Module,
        late: LateSharding,
        slots: dict[Parameter, Slot],
    ) -> None:
        super().__init__(late.name)
        self._late = late
        self._optimizer, self._model = weakref.ref(optimizer), weakref.ref(model)
        self._slots = slots
        self._is_known = False
        """Whether it is known who averages."""
        self._averages = False
        self._group: Any = None
        self._error: HubError | None = None
        """The error of an update under FSDP2, whose backward pass goes on to its end."""
        self._owes_end = self._arrived = False
        self._hidden = HiddenFromDdp(model, self._parameters())
        self._removers = [self._hidden.remove, *self._place_hooks(model)]
        weakref.finalize(self, _run_all, self._removers).atexit = False

    def _place_hooks(self, model: Module) -> Iterator[Callable[[], None]]:
        ours = {id(p) for p in self._parameters()}
        owners = (m for m in model.modules() if any(id(p) in ours for p in _owned(m)))
        for module in {model: None, **dict.fromkeys(owners)}:
            hook = Hook(self, module, "before_forward")
            yield module.register_forward_pre_hook(hook, prepend=True).remove

    def remove(self) -> None:
        """Remove the hooks from the model, and let DDP average all gradients again."""
        _run_all(self._removers)

    def forget(self) -> None:
        """Look again who averages, because parameters have been added or replaced."""
        self._is_known = False
        self._hidden.replace(self._parameters())

    # Who averages.

    def before_forward(self, module: Module, *_: object) -> None:
        """Find out who averages, in the first forward pass.

        Raises:
            UnsupportedError: Nobody would, or both hub and a wrapper.
        """
        ddp = active_ddp()
        if ddp is None and not torch.is_grad_enabled():
            return
        if ddp is not None:
            check_not_joining(self.name, ddp)
        if not self._is_known or not self._hidden.is_from(ddp):
            self._find_out(ddp)
            self._broadcast()
        if module is self._model() and torch.is_grad_enabled():
            self._count_passes(module)

    def _find_out(self, ddp: Any) -> None:
        self._late.settle()
        parameters = self._parameters()
        if not self._hidden.is_from(ddp) or ddp is None:
            check_wrapper(self.name, self._slots.values(), ddp, self._hidden.names)
        sharded = [p for p in parameters if hasattr(p, "device_mesh")]
        self._averages = not sharded
        self._group = _group_of(sharded[0].device_mesh) if sharded else None
        if ddp is not None:
            self._group = ddp.process_group
            self._hidden.hide_from(ddp)
        self._is_known = True

    def _broadcast(self) -> None:
        """Give all processes the weights of rank 0, except for those that DDP has given them."""
        model = self._model()
        if not self._averages or model is None:
            return
        source = 0 if self._group is None else distributed.get_global_rank(self._group, 0)
        for tensor in self._hidden.parameters() or (*model.parameters(), *model.buffers()):
            sent = tensor.detach().contiguous()
            distributed.broadcast(sent, source, group=self._group)
            if sent.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(sent)

    def _count_passes(self, model: Module) -> None:
        """Count the backward passes whose gradients FSDP2 keeps to itself."""
        if self._arrived:
            self._arrived, self.passes = False, 1
        if not self._averages and not synchronizes(model):
            self.passes += 1

    # What the engine calls.

    def begin_pass(self) -> None:
        """Begin a backward pass: know who averages, and end it on all processes together."""
        if not self._is_known:
            self._find_out_late()
        self._arrived = True
        self._owes_end = not self._averages
        # FSDP ends its backward passes with this; torch 2.13 has no public equivalent.
        torch.autograd.Variable._execution_engine.queue_callback(self._end_pass)  # noqa: SLF001

    def average(self, slot: Slot) -> None:
        """Replace a gradient by its mean over all processes."""
        if self._averages:
            gradient = slot.gradient.detach()
            self._reduce(slot, gradient, Event.GRADIENT)
            if gradient.is_sparse:  # the mean has other indices, so it is not written in place
                slot.parameter.grad = gradient

    def averaged(self, slot: Slot) -> Tensor:
        """Return the mean of a gradient over all processes."""
        if not self._averages:
            return slot.gradient
        copy = slot.gradient.detach().clone()
        self._reduce(slot, copy, Event.NORM)
        return copy

    def fail(self, error: HubError) -> None:
        """Raise the error of an update on every process: here, or at the end of the pass."""
        if not self._is_known:
            raise error
        if self._averages:
            self._agree(Event.FAILURE, error=error)
        self._error = self._error or error

    def end_step(self) -> None:
        """End a step on every process."""
        if self._is_known:
            self._agree(Event.STEP)

    # Inside.

    def _find_out_late(self) -> None:
        """Find out who averages although no forward pass of the model was seen."""
        if not any(hasattr(p, "device_mesh") for p in self._parameters()):
            raise UnsupportedError(
                "hub saw no forward pass of the model before its backward pass, and does not know "
                "whether the gradients of the processes are averaged",
                where=self.name,
                fix="call the model itself, not only functions with its weights",
            )
        self._find_out(None)

    def _end_pass(self) -> None:
        if self._owes_end:
            self._owes_end = False
            self._agree(Event.END_OF_PASS)

    def _reduce(self, slot: Slot, gradient: Tensor, event: Event) -> None:
        self._agree(event, slot.number)
        self._owes_end = event is Event.GRADIENT
        # DDP rounds in this order too (torch 2.13, `reducer.cpp`, `mark_variable_ready_dense`).
        gradient.mul_(1.0 / distributed.get_world_size(self._group))
        distributed.all_reduce(gradient, group=self._group)

    def _agree(self, event: Event, number: int = 0, error: HubError | None = None) -> None:
        """Exchange what this process has arrived at; raise unless all are there.

        An error drops the gradients that wait, so that `step()` ends the step on all processes.

        Raises:
            UnsupportedError: They are not.
            HubError: An update has failed on one of them.
        """
        error, self._error = error or self._error, None
        own = torch.tensor(
            [Event.FAILURE if error else event, number], device=self._parameters()[0].device
        )
        rows = [torch.empty_like(own) for _ in range(distributed.get_world_size(self._group))]
        distributed.all_gather(rows, own, group=self._group)
        found = [(Event(kind), index) for kind, index in torch.stack(rows).tolist()]
        has_failed = any(kind is Event.FAILURE for kind, _ in found)
        if not has_failed and all(one == found[0] for one in found):
            return
        self._drop_waiting()
        if has_failed:
            self._raise_everywhere(error, len(found))
        raise self._out_of_order(found)

    def _drop_waiting(self) -> None:
        for slot in self._slots.values():
            if not slot.updated:
                slot.clear(set_to_none=True)

    def _raise_everywhere(self, error: HubError | None, ranks: int) -> None:
        """Raise the error of the first process that has one."""
        texts: list[Any] = [None] * ranks
        own = None if error is None else (error.what, error.fix)
        distributed.all_gather_object(texts, own, group=self._group)
        rank, (what, fix) = next((r, text) for r, text in enumerate(texts) if text)
        if not all(texts):
            fix = f"{fix}; the processes differ now, so resume from a checkpoint"
        raise HubError(f"on rank {rank}, {what}", where=self.name, fix=fix) from error

    def _out_of_order(self, found: Sequence[tuple[Event, int]]) -> HubError:
        other = next(rank for rank, one in enumerate(found) if one != found[0])
        first, second = (self._shown(*found[rank]) for rank in (0, other))
        return UnsupportedError(
            f"the processes differ in the order of their gradients: rank 0 is at {first}, rank "
            f"{other} at {second}",
            where="loss.backward()",
            fix="let every process use the same layers in the same order, or use the optimizer's "
            "eager form",
        )

    def _shown(self, event: Event, number: int) -> str:
        match event:
            case Event.END_OF_PASS:
                return "the end of the backward pass"
            case Event.STEP:
                return "optimizer.step()"
            case Event.NORM:
                return f"hub.grad_norm, for {list(self._slots.values())[number].name}"
        return list(self._slots.values())[number].name

    def _parameters(self) -> list[Any]:
        optimizer = self._optimizer()
        groups = optimizer.param_groups if optimizer is not None else ()
        return [p for group in groups for p in group["params"]]


def processes_of(
    optimizer: Optimizer, model: Module, late: LateSharding, slots: dict[Parameter, Slot]
) -> OneProcess:
    """Return the processes that train a model with an optimizer."""
    return Processes(optimizer, model, late, slots) if _several() else OneProcess(late.name)


def _several() -> bool:
    initialized = distributed.is_available() and distributed.is_initialized()
    return initialized and distributed.get_world_size() > 1


def _group_of(mesh: Any) -> Any:
    """Return the processes of a mesh; of one with several dimensions, all processes."""
    return mesh.get_group() if mesh.ndim == 1 else None


def _owned(module: Module) -> Iterable[Parameter | None]:
    return module._parameters.values()  # noqa: SLF001 - parameters() looks for duplicates


def _run_all(removers: list[Callable[[], None]]) -> None:
    while removers:
        removers.pop()()
