"""The engine: hooks that update each parameter when its gradient is complete.

In one step each parameter goes through these states; `Slot` holds them.

| state | `slot.gradients_seen` | `slot.updated` | `parameter.grad` |
|---|---|---|---|
| idle | 0 | False | None |
| accumulating | fewer than `settings.accumulation` | False | their sum |
| updated | `settings.accumulation` | True | `ReleasedGradient` |

| event | what happens |
|---|---|
| the first gradient of a step completes | the step begins: step pre-hooks are called |
| a gradient completes | it is clipped, and its parameter is updated |
| an updated parameter gets another gradient | an error |
| `step()` | parameters with a gradient left are updated, post-hooks are called, all become idle |
| `zero_grad()` | accumulating parameters become idle; an error if some are updated |
| `measure([engine], loss)` | gradients are measured and freed; no parameter changes its state |

`self_ending` describes what differs if nothing calls `step()`.
"""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import increment_version

from hub.errors import UnsupportedError
from hub.running.layerwise.clipping import Clipping, norm, total
from hub.running.layerwise.messages import Messages
from hub.running.layerwise.processes import OneProcess, processes_of
from hub.running.layerwise.released import release
from hub.running.layerwise.settings import Settings, Slot
from hub.running.stand_ins import StandIn
from hub.running.steps import call_step_post_hooks, call_step_pre_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

    from hub.running.sharded.step import ShardedStep


class Engine:
    """Steps one optimizer inside the backward pass.

    Args:
        optimizer: The optimizer to step; held weakly.
        settings: How to step it.
        step: Runs the step of the optimizer's class.
        model: The model that it trains; held weakly.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        settings: Settings,
        step: ShardedStep,
        model: Module,
    ) -> None:
        self.settings = settings
        self._optimizer = weakref.ref(optimizer)
        self._reference = weakref.ref(self)
        self._step = step
        self._step_one = step.for_one()
        self._clipping = Clipping(settings)
        self._lock = threading.RLock()  # autograd has a thread for each device
        self._slots: dict[Parameter, Slot] = {}
        """One slot for each parameter, in the order of the groups."""
        self._group_ids: list[int] = []
        """The identities of the groups that the slots refer to."""
        self._updated: list[Slot] = []
        """The slots updated in this step, in order."""
        self._measuring = False
        self._keeps_zeros = False
        self._pass = -1
        """autograd's number of the backward pass that produced the last gradient."""
        self.messages = Messages(settings, self._slots, self._updated)
        self._message_reference = weakref.ref(self.messages)
        self._last_norms: list[Tensor] = []
        self._processes = OneProcess(settings.name)
        self.place_hooks()
        self._processes = processes_of(optimizer, model, step.late, self._slots)
        weakref.finalize(self, _remove, self._slots).atexit = False

    def place_hooks(self) -> None:
        """Place this engine's hook on every parameter in the groups that does not have it yet.

        Parameters that are no longer in the groups lose it.

        Raises:
            UnsupportedError: Another engine steps one of them.
        """
        self._group_ids = []
        self._locate(self._live())
        new = [slot for slot in self._slots.values() if slot.handle is None]
        try:
            check_not_stepped((slot.name, slot.parameter) for slot in new)
        except UnsupportedError:
            for slot in new:
                del self._slots[slot.parameter]
            raise
        self._processes.forget()
        for slot in new:
            slot.handle = slot.parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(_on_gradient, self._reference, slot)
            )

    def remove(self) -> None:
        """Remove the hooks and the placeholders of released gradients from the parameters."""
        for slot in self._updated:
            slot.parameter.grad = None
        self._processes.remove()
        _remove(self._slots)

    def on_gradient(self, slot: Slot) -> None:
        """Handle a gradient: measure it, count it, or update the parameter.

        Raises:
            UnsupportedError: The parameter has already been updated in this step.
            HubError: Its update fails.
        """
        with self._lock:
            number = torch._C._current_graph_task_id()  # noqa: SLF001 - no public equivalent
            is_first = number != self._pass
            if is_first:
                self._pass = number
                self._processes.begin_pass()
            if self._measuring:
                self._processes.average(slot)
                slot.norm = self._clipping.measure(slot.gradient)
                slot.parameter.grad = None
                return
            if is_first:
                self._begin_pass(slot, groups_are_new=self._locate(self._live()))
            if slot.updated:
                raise self.messages.second_backward()
            if self.settings.accumulation == 1 and slot.waiting is None:
                slot.gradients_seen = 1
                self._update_complete(slot)
                return
            self._count(slot)
            if slot.gradients_seen >= self.settings.accumulation:
                self._update_complete(slot)

    def end_step(self) -> None:
        """Update the parameters that still have a gradient, and end the step.

        The optimizer's step hooks are called as usual: pre-hooks before the first update of a step,
        post-hooks here.
        """
        with self._lock:
            if not self._updated:
                self._begin_step(self._live())
            self._update_rest()
            self._processes.end_step()
            self._finish_step()

    def drop_gradients(self, *, set_to_none: bool) -> None:
        """Drop accumulating gradients, as `zero_grad` does.

        Raises:
            UnsupportedError: Some gradients of this step have already been used.
        """
        with self._lock:
            if self._updated:
                raise self.messages.used_already()
            self._keeps_zeros = not set_to_none
            for slot in self._slots.values():
                slot.clear(set_to_none=set_to_none)

    def measure(self, loss: Tensor) -> Tensor:
        """Return the norm of a loss's gradients, if no other optimizer trains with the loss."""
        return measure([self], loss)

    def begin_measuring(self) -> None:
        """Let the next backward pass measure gradients, and update nothing.

        Raises:
            UnsupportedError: A step has begun, or gradients have accumulated.
        """
        if any(slot.gradients_seen for slot in self._slots.values()):
            raise self.messages.second_backward()
        for slot in self._slots.values():
            slot.norm = None
        self._measuring = True

    def end_measuring(self) -> list[Tensor]:
        """Let backward passes update again, and return the norms of the measured gradients."""
        self._measuring = False
        return [slot.norm for slot in self._slots.values() if slot.norm is not None]

    def set_total_norm(self, whole: Tensor) -> None:
        """Set the norm of all gradients of the next backward pass."""
        self._clipping.set_total_norm(whole)

    @property
    def knows_total_norm(self) -> bool:
        """Whether the factor that clips the next gradients is known."""
        return self._clipping.knows_total_norm

    @property
    def loss_scale(self) -> float | None:
        """The factor on the loss in the running backward pass, if there is one."""
        return self._clipping.loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float | None) -> None:
        self._clipping.loss_scale = scale

    def grad_norm(self) -> Tensor:
        """Return the norm, before clipping, of all gradients of this step.

        If this step has no gradients yet, return the last step's.
        """
        running = [
            slot.norm if slot.updated else norm(self._processes.averaged(slot))
            for slot in self._slots.values()
            if slot.updated or slot.parameter.grad is not None
        ]
        return total([one for one in running if one is not None] or self._last_norms)

    def _begin_pass(self, slot: Slot, *, groups_are_new: bool) -> None:
        """Begin a backward pass, whose first gradient is this slot's."""

    def _count(self, slot: Slot) -> None:
        slot.count(self._processes.passes)

    def _finish_step(self) -> None:
        """End a step after its updates."""
        optimizer = self._live()
        self._step.end(optimizer)
        self._last_norms = [s.norm for s in self._slots.values() if s.norm is not None]
        self._clipping.end(self._last_norms, optimizer.param_groups[0])
        for slot in self._slots.values():
            slot.end()
        self._updated.clear()
        self._keeps_zeros = False
        call_step_post_hooks(optimizer)

    def _begin_step(self, optimizer: Optimizer) -> None:
        """Begin a step with its first update."""
        self._locate(optimizer)  # loading a state dict replaces the groups
        self._step.begin()
        call_step_pre_hooks(optimizer)
        self._step_one = self._step.for_one()

    def _update_complete(self, slot: Slot) -> None:
        """Update a parameter whose gradient is complete."""
        self._update(slot)

    def _update(self, slot: Slot) -> None:
        optimizer = self._live()
        self._processes.average(slot)
        if not self._updated:
            self._begin_step(optimizer)
        self._clipping.clip(slot, optimizer)
        try:
            self._step_one(optimizer, slot.itself)
        except Exception as error:  # noqa: BLE001 - every process raises it
            slot.parameter.grad = None
            failure = self.messages.failed(slot, error)
            failure.__cause__ = error
            self._processes.fail(failure)
            return
        # Reading the weight again in this backward pass is then an error. Not every package's
        # kernels report their writes to autograd.
        increment_version(slot.parameter)
        slot.updated = slot.has_zeros = True
        self._updated.append(slot)
        release(slot, self._message_reference)

    def _update_rest(self) -> None:
        """Update parameters that lack the gradients of some micro-batches, or that keep zeros."""
        with self._lock:
            for slot in self._slots.values():
                if slot.updated:
                    continue
                if self._keeps_zeros and slot.has_zeros and slot.parameter.grad is None:
                    slot.parameter.grad = torch.zeros_like(slot.parameter)
                if slot.parameter.grad is not None:
                    self._update(slot)

    def _locate(self, optimizer: Optimizer) -> bool:
        """Find each parameter's group and index; return whether the groups are new."""
        found = [id(group) for group in optimizer.param_groups]
        if found == self._group_ids:
            return False
        self._group_ids = found
        held = {p for group in optimizer.param_groups for p in group["params"]}
        _remove({p: self._slots.pop(p) for p in [*self._slots] if p not in held})
        for group in optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                slot = self._slots.setdefault(parameter, Slot(parameter))
                slot.itself = StandIn(group, index, parameter, parameter)
        for number, slot in enumerate(self._slots.values()):
            slot.number = number
        return True

    def _live(self) -> Optimizer:
        optimizer = self._optimizer()
        assert optimizer is not None  # noqa: S101 - its hooks are removed when it is collected
        return optimizer


def measure(engines: Sequence[Engine], loss: Tensor) -> Tensor:
    """Return the norm of a loss's gradients, by a backward pass that updates nothing.

    The graph is kept for the backward pass that updates. Each gradient is freed once measured.

    Args:
        engines: Those of all optimizers that train with the loss.
        loss: A scalar.

    Raises:
        UnsupportedError: A step has begun, or gradients have accumulated.
    """
    norms: list[Tensor] = []
    try:
        for engine in engines:
            engine.begin_measuring()
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    finally:
        for engine in engines:
            norms += engine.end_measuring()
    whole = total(norms)
    for engine in engines:
        engine.set_total_norm(whole)
    return whole


def check_not_stepped(named: Iterable[tuple[str, Parameter]]) -> None:
    """Check that no live optimizer steps these parameters inside the backward pass.

    Raises:
        UnsupportedError: One does; the error names the optimizer.
    """
    for name, parameter in named:
        hooks: dict[int, Any] = parameter._post_accumulate_grad_hooks or {}  # noqa: SLF001 - no public equivalent
        for hook in hooks.values():
            engine = hook.args[0]() if getattr(hook, "func", None) is _on_gradient else None
            if engine is not None:
                raise UnsupportedError(
                    f"{engine.settings.name} still updates {name} inside the backward pass",
                    where="model",
                    fix="call hub.detach(model) first",
                )


def _on_gradient(engine: Callable[[], Engine | None], slot: Slot, _: Parameter) -> None:
    """Pass a parameter's gradient to its engine, if that is alive: the hook on a parameter."""
    live = engine()
    if live is not None:
        live.on_gradient(slot)


def _remove(slots: dict[Parameter, Slot]) -> None:
    for slot in slots.values():
        if slot.handle is not None:
            slot.handle.remove()
    slots.clear()
