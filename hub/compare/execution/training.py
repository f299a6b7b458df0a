"""One training, as a stream of events; it runs in its own process."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

import hub
from hub.compare import tasks
from hub.compare.execution.events import Ended, Evaluated, Event, Measured, Started, Stepped, Warned
from hub.compare.result import WARM_UP_STEPS, Purpose, Status
from hub.errors import HubWarning
from hub.experiments import clock, memory
from hub.experiments.devices import device_in_words
from hub.experiments.traffic import step_bytes
from hub.measuring import GradientMeter, tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hub.compare.result import Run
    from hub.compare.settings import Settings
    from hub.compare.tasks import Task
    from hub.experiments.contender import Contender
    from hub.plans import Plan


class DivergedError(Exception):
    """A loss is not a finite number."""

    def __init__(self, loss: float, place: str, step: int) -> None:
        super().__init__(f"its loss is {loss} {place} step {step}")
        self.step = step


def train(settings: Settings, contender: Contender, run: Run) -> Iterator[Event]:
    """Train a task with one optimizer, and yield each event as soon as it happens.

    Raises:
        HubError: The task, optimizer or schedule cannot be built.
    """
    warm_up(torch.device(settings.device))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", HubWarning)  # what packages deprecate is no result
        ended = Ended(Status.DONE)
        try:
            yield from _events(settings, contender, run)
        except DivergedError as error:
            ended = Ended(Status.DIVERGED, str(error), diverged_at=error.step)
    yield from (Warned(message) for message in dict.fromkeys(str(one.message) for one in caught))
    yield ended


def _events(settings: Settings, contender: Contender, run: Run) -> Iterator[Event]:
    task = tasks.load(run.task, settings.task_options)
    trainer = Trainer.build(settings, contender, run, task)
    yield trainer.started()
    meter = memory.meter(trainer.device)
    meter.start(trainer.held_bytes())
    yield trainer.evaluate(0)
    moments = set(settings.evaluated_after(run.steps, task.target))
    gradients = GradientMeter(trainer.model.parameters())
    for step, batch in enumerate(itertools.islice(task.batches(run.seed), run.steps), 1):
        with gradients if step == 1 else nullcontext():
            yield trainer.step(step, batch)
        if step in moments:
            yield trainer.evaluate(step)
    peak = meter.peak()
    yield trainer.evaluate(run.steps)
    yield trainer.measured(gradients.most, peak)


def warm_up(device: torch.device) -> None:
    """Run a tiny backward pass, so that no optimizer's figures hold torch's own start-up."""
    weight = torch.ones(8, 8, device=device, requires_grad=True)
    targets = torch.zeros(8, dtype=torch.long, device=device)
    torch.autograd.backward(torch.nn.functional.cross_entropy(weight @ weight, targets))


@dataclass(frozen=True)
class Trainer:
    """A model and what trains it."""

    settings: Settings
    run: Run
    task: Task
    device: torch.device
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    own_step: clock.StepClock | None
    """Times the optimizer's own step, where that is not inside the backward pass."""

    @classmethod
    def build(cls, settings: Settings, contender: Contender, run: Run, task: Task) -> Trainer:
        """Make the same start for every contender: seed, model, optimizer, schedule."""
        device = torch.device(settings.device)
        torch.manual_seed(run.seed)
        dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        module = task.model(run.seed).to(device, dtype).train()
        traits = hub.describe(contender.name).traits
        targets = settings.target_modules if hub.Trait.LOW_RANK in traits else None
        optimizer = hub.build(
            contender.name,
            module,
            optim_args=contender.optim_args or None,
            target_modules=contender.target_modules or targets,
            param_rules=contender.param_rules,
            precision=settings.precision,
            max_grad_norm=settings.of(contender, "max_grad_norm"),
            **run.arguments,
        )
        schedule = settings.of(contender, "lr_scheduler")
        scheduler = schedule and hub.build_scheduler(
            schedule,
            optimizer,
            num_warmup_steps=settings.of(contender, "warmup_steps"),
            num_training_steps=run.steps,
        )
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16-mixed")
        own_step = None if hub.Trait.STEPS_IN_BACKWARD in traits else clock.StepClock(device)
        torch.manual_seed(run.seed)  # what building drew must not show in dropout
        return cls(settings, run, task, device, module, optimizer, scheduler, scaler, own_step)

    @property
    def plan(self) -> Plan:
        """What hub planned for the optimizer."""
        plan: Plan = self.optimizer.hub_plan  # type: ignore[attr-defined]
        return plan

    def started(self) -> Started:
        """Say what was built."""
        trained = [one for one in self.model.parameters() if one.requires_grad]
        arguments = self.plan.arguments
        return Started(
            parameters=sum(one.numel() for one in trained),
            device=device_in_words(self.device),
            arguments={one.name: one.value for one in arguments},
            changed=tuple(one.name for one in arguments if one.origin != "default"),
            findings=tuple(str(finding) for finding in self.plan.findings),
        )

    def held_bytes(self) -> int:
        """Bytes of the parameters, and of the state that already exists."""
        weights = sum(tensor_bytes(one) for one in self.model.parameters())
        return weights + memory.state_bytes(self.optimizer)

    def step(self, step: int, batch: Any) -> Stepped:
        """Train on one batch; the time is that of the whole step."""
        start = time.perf_counter()
        loss = self._loss(batch)
        if self.plan.values.get("clipping") == "exact":
            hub.grad_norm(self.optimizer, loss)
        torch.autograd.backward(self.scaler.scale(loss))
        with self.own_step or nullcontext():
            self.scaler.step(self.optimizer)  # clips first, if `hub.build` was told to
        self.scaler.update()
        self.optimizer.zero_grad()
        value = loss.item()  # waits for the device, so that the clock sees the whole step
        seconds = time.perf_counter() - start
        if self.own_step:
            self.own_step.read()
        self._step_schedule(value)
        return Stepped(step, _finite(value, "at", step), seconds)

    def evaluate(self, step: int) -> Evaluated:
        """Return the held-out loss, with the optimizer's evaluation weights."""
        self.model.eval()
        with hub.eval_mode(self.optimizer), torch.no_grad(), self._autocast():
            loss = float(self.task.evaluate(self.model))
        self.model.train()
        return Evaluated(step, _finite(loss, "on held-out data after", step))

    def measured(self, gradient_bytes: int, peak: int | None) -> Measured:
        """Say what the training took, now that it is done."""
        state = memory.state_bytes(self.optimizer)
        compared = self.run.purpose is Purpose.FINAL and not self.task.quick
        return Measured(
            state_bytes=state,
            gradient_bytes=gradient_bytes,
            peak_memory_bytes=peak,
            step_bytes=step_bytes(self.model, state),
            host_ms=_settled(self.own_step.host_ms) if self.own_step else None,
            device_ms=_settled(self.own_step.device_ms) if self.own_step else None,
            bandwidth=clock.bandwidth(self.device) if compared else None,
        )

    def _loss(self, batch: Any) -> torch.Tensor:
        with self._autocast():
            return self.task.loss(self.model, tasks.to_device(batch, self.device))

    def _autocast(self) -> torch.autocast:
        mixed = self.settings.precision.endswith("-mixed")
        dtype = torch.float16 if self.settings.precision == "fp16-mixed" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=mixed)

    def _step_schedule(self, loss: float) -> None:
        if self.scheduler is None:
            return
        if "metrics" in signature(self.scheduler.step).parameters:  # it watches the loss
            self.scheduler.step(loss)
        else:
            self.scheduler.step()


def _finite(loss: float, place: str, step: int) -> float:
    if not math.isfinite(loss):
        raise DivergedError(loss, place, step)
    return loss


def _settled(times: Sequence[float]) -> float | None:
    """Return the median without the first few, in which optimizers make their state."""
    counted = times[min(WARM_UP_STEPS, len(times) // 2) :]
    return median(counted) if counted else None
