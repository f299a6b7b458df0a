"""The engine: hooks that update each parameter when its gradient is complete."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from hub.errors import UnsupportedError
from hub.layerwise.clipping import Clipping, norm, total
from hub.layerwise.notices import Notices
from hub.layerwise.settings import Settings, Slot
from hub.layerwise.single import SingleStep
from hub.layerwise.spent import SpentGradient
from hub.layerwise.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer


class Engine:
    """Steps one optimizer inside the backward pass.

    Args:
        optimizer: What is stepped; the engine does not keep it alive.
        settings: How.
        step: The optimizer's own, without hooks.
    """

    def __init__(
        self, optimizer: Optimizer, settings: Settings, step: Callable[[Optimizer], object]
    ) -> None:
        self.settings = settings
        self._optimizer = weakref.ref(optimizer)
        self._reference = weakref.ref(self)
        self._single = SingleStep(step, settings.counters)
        self._clipping = Clipping(settings)
        self._windows = Windows(settings.accumulation)
        self._lock = threading.RLock()  # autograd has a thread for each device
        self._slots: dict[Parameter, Slot] = {}
        """In the order of the groups."""
        self._located: list[int] = []
        self._updated: list[Slot] = []
        """In this step, in order."""
        self._measuring = False
        self._ends_itself = settings.ends_itself
        self._keeps_zeros = False
        self._pass = -1
        """autograd's number of the backward pass that the last gradient came from."""
        self.notices = Notices(settings, self._slots, self._updated)
        self._last_norms: list[Tensor] = []
        self.place_hooks()
        weakref.finalize(self, _remove, self._slots).atexit = False

    def place_hooks(self) -> None:
        """Place a hook on each parameter in the groups that has none of this engine yet.

        Raises:
            UnsupportedError: One is stepped by another engine.
        """
        self._locate(self._live())
        new = [slot for slot in self._slots.values() if slot.handle is None]
        try:
            check_free((slot.name, slot.parameter) for slot in new)
        except UnsupportedError:
            for slot in new:
                del self._slots[slot.parameter]
            raise
        for slot in new:
            slot.handle = slot.parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(_arrived, self._reference, slot)
            )

    def remove(self) -> None:
        """Take the hooks off the parameters, and what is left of spent gradients."""
        for slot in self._updated:
            slot.parameter.grad = None
        _remove(self._slots)

    def arrived(self, slot: Slot) -> None:
        """Take over a gradient: measure it, count it, or update the parameter.

        Raises:
            UnsupportedError: The parameter was updated in this step already.
            HubError: Its update fails.
        """
        with self._lock:
            if self._measuring:
                slot.norm = self._clipping.measure(slot.gradient)
                slot.parameter.grad = None
                return
            self._enter_pass(slot)
            if slot.updated:
                raise self.notices.second_backward()
            cleared = slot.count()
            if cleared and self._ends_itself:
                self.notices.tell_of_cleared(cleared)
            if slot.arrived >= self.settings.accumulation:
                if self._ends_itself and not self._updated:
                    self._queue_the_waiting()
                self._update(slot)

    def close(self) -> None:
        """End the step, as `step()` does; from then on nothing else ends one."""
        with self._lock:
            self._end()
            self._ends_itself = False

    def finish(self) -> None:
        """End the step if it has begun, for nobody may call `step()`."""
        with self._lock:
            if self._updated:
                self._end()

    def forget(self, *, set_to_none: bool) -> None:
        """Drop the gradients that wait for others, as `zero_grad` does.

        Raises:
            UnsupportedError: Gradients that are to be dropped have been used.
        """
        with self._lock:
            if self._updated and not self._ends_itself:
                raise self.notices.used_already()
            if not set_to_none:  # the zeros are for the next step
                self.finish()
            self._keeps_zeros = not set_to_none
            for slot in self._slots.values():
                slot.clear(set_to_none=set_to_none)

    def measure(self, loss: Tensor) -> Tensor:
        """Return the norm of a loss's gradients by a backward pass that updates nothing.

        The graph is kept for the backward pass that does. Each gradient is freed once measured.

        Raises:
            UnsupportedError: A step has begun, or gradients have accumulated.
        """
        if self.settings.ends_itself:
            self.finish()
        if any(slot.arrived for slot in self._slots.values()):
            raise self.notices.second_backward()
        for slot in self._slots.values():
            slot.norm = None
        self._measuring = True
        try:
            loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        finally:
            self._measuring = False
        whole = total(slot.norm for slot in self._slots.values() if slot.norm is not None)
        self._clipping.measured(whole)
        return whole

    @property
    def is_measured(self) -> bool:
        """Whether it is known what the gradients that come next are clipped by."""
        return self._clipping.is_measured

    @property
    def loss_scale(self) -> float | None:
        """What the loss of the running backward pass is multiplied by, if anything."""
        return self._clipping.loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float | None) -> None:
        self._clipping.loss_scale = scale

    def grad_norm(self) -> Tensor:
        """Return the norm of all gradients of this step, or of the last one if none has come.

        As they were before clipping.
        """
        running = [
            slot.norm if slot.updated else norm(slot.gradient)
            for slot in self._slots.values()
            if slot.updated or slot.parameter.grad is not None
        ]
        return total([one for one in running if one is not None] or self._last_norms)

    def _enter_pass(self, slot: Slot) -> None:
        """See to what ends with the backward pass before this one, or with this one."""
        number = torch._C._current_graph_task_id()  # noqa: SLF001 - nothing public tells
        if number == self._pass:
            return
        self._pass = number
        if self._locate(self._live()):
            self._ends_itself = self.settings.ends_itself
        if not self._ends_itself:
            return
        if self._is_cleared():
            self._end_before(slot)
        if self._windows.ends():
            self._queue_the_waiting()

    def _end(self) -> None:
        """End the step: update what still has a gradient, and free the others.

        The optimizer's step hooks are called as ever: the first before the first update of a step,
        the others here.
        """
        optimizer = self._live()
        self._open(optimizer)
        self._update_the_waiting()
        self._single.count_idle_groups(optimizer)
        self._last_norms = [s.norm for s in self._slots.values() if s.norm is not None]
        self._clipping.end(self._last_norms, optimizer.param_groups[0])
        for slot in self._slots.values():
            slot.end()
        self._updated.clear()
        self._keeps_zeros = False
        own = optimizer._optimizer_step_post_hooks  # noqa: SLF001
        for hook in (*own.values(), *_global_optimizer_post_hooks.values()):
            hook(optimizer, (optimizer,), {})

    def _open(self, optimizer: Optimizer) -> None:
        """Begin a step with its first update; loading a state dict has made new groups."""
        if self._updated:
            return
        self._locate(optimizer)
        self._single.begin()
        own = optimizer._optimizer_step_pre_hooks  # noqa: SLF001 - as `Optimizer.step` calls them
        for hook in (*_global_optimizer_pre_hooks.values(), *own.values()):
            hook(optimizer, (optimizer,), {})

    def _update(self, slot: Slot) -> None:
        optimizer = self._live()
        self._open(optimizer)
        self._clipping.clip(slot, slot.gradient, optimizer.param_groups[0])
        try:
            self._single.update(optimizer, slot)
        except Exception as error:
            slot.parameter.grad = None
            raise self.notices.failed(slot, error) from error
        # Whoever reads the weight again in this backward pass gets an error. Not every package's
        # kernels tell autograd by themselves that they write.
        torch.autograd.graph.increment_version(slot.parameter)
        slot.updated = slot.has_zeros = True
        self._updated.append(slot)
        # A DTensor takes no gradient but DTensors.
        plain = type(slot.parameter) is torch.nn.Parameter
        slot.parameter.grad = SpentGradient.of(slot, self._reference) if plain else None

    def _update_the_waiting(self) -> None:
        """Update the parameters that had no gradient in some micro-batches, or have zeros."""
        with self._lock:
            for slot in self._slots.values():
                if slot.updated:
                    continue
                if self._keeps_zeros and slot.has_zeros and slot.parameter.grad is None:
                    slot.parameter.grad = torch.zeros_like(slot.parameter)
                if slot.parameter.grad is not None:
                    self._update(slot)

    def _queue_the_waiting(self) -> None:
        """Have them updated when this backward pass is over, before a scheduler writes a new lr."""
        # What FSDP ends its backward passes with; torch 2.13 has nothing public for it.
        queue = torch.autograd.Variable._execution_engine.queue_callback  # noqa: SLF001
        queue(self._update_the_waiting)

    def _is_cleared(self) -> bool:
        """Whether the gradients of updated parameters are gone without a `step()`."""
        last = self._updated[-1].parameter if self._updated else None
        return type(last) is torch.nn.Parameter and not isinstance(last.grad, SpentGradient)

    def _end_before(self, slot: Slot) -> None:
        """End the step before the one that this gradient is the first of."""
        gradient, slot.parameter.grad = slot.parameter.grad, None
        self._end()
        slot.parameter.grad = gradient

    def _locate(self, optimizer: Optimizer) -> bool:
        """Find each parameter's group and its place there; return whether groups are new."""
        found = [id(group) for group in optimizer.param_groups]
        if found == self._located:
            return False
        self._located = found
        for group in optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                slot = self._slots.setdefault(parameter, Slot(parameter))
                slot.group, slot.index = group, index
        return True

    def _live(self) -> Optimizer:
        optimizer = self._optimizer()
        assert optimizer is not None  # noqa: S101 - the hooks go when it does
        return optimizer


def check_free(named: Iterable[tuple[str, Parameter]]) -> None:
    """Hold parameters to not being stepped inside the backward pass by a live optimizer.

    Raises:
        UnsupportedError: One is; the error names the optimizer.
    """
    for name, parameter in named:
        hooks: dict[int, Any] = parameter._post_accumulate_grad_hooks or {}  # noqa: SLF001 - nothing public tells
        for hook in hooks.values():
            engine = hook.args[0]() if getattr(hook, "func", None) is _arrived else None
            if engine is not None:
                raise UnsupportedError(
                    f"{engine.settings.name} still updates {name} inside the backward pass",
                    where="model",
                    fix="call hub.detach(model) first",
                )


def _arrived(engine: Callable[[], Engine | None], slot: Slot, _: Parameter) -> None:
    """Be the hook; it does not keep the engine alive."""
    live = engine()
    if live is not None:
        live.arrived(slot)


def _remove(slots: dict[Parameter, Slot]) -> None:
    for slot in slots.values():
        if slot.handle is not None:
            slot.handle.remove()
    slots.clear()
