"""One training, as a stream of events; it runs in its own process."""

from __future__ import annotations

import itertools
import math
import platform
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import torch

import hub
from hub.compare import corpus, memory, model
from hub.compare.events import Evaluated, Event, Finished, Measured, Started, Stepped, Warned
from hub.errors import HubError, HubWarning
from hub.measuring import GradientMeter, tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hub.compare.corpus import Corpus
    from hub.compare.settings import Contender, Settings
    from hub.plans import Plan


def train(settings: Settings, contender: Contender, text: Corpus) -> Iterator[Event]:
    """Train the model with one optimizer, and yield each event as soon as it happens.

    Raises:
        HubError: The model, optimizer or schedule cannot be built, or the loss is not finite.
    """
    warm_up(torch.device(settings.device))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", HubWarning)  # what packages deprecate is no result
        trainer = Trainer.build(settings, contender)
        yield Started(trainer.parameters, device_in_words(trainer.device), trainer.arguments)
        meter = memory.meter(trainer.device)
        meter.start(trainer.held_bytes())
        yield trainer.evaluate("before", text)
        length = settings.sequence_length
        batches = corpus.training_batches(text, settings.batch_size, length, settings.seed)
        gradients = GradientMeter(trainer.model.parameters())
        for step, batch in enumerate(itertools.islice(batches, settings.steps), 1):
            with gradients if step == 1 else nullcontext():
                yield trainer.step(step, batch)
        peak = meter.peak()
        yield trainer.evaluate("after", text)
        yield Measured(memory.state_bytes(trainer.optimizer), gradients.most, peak)
    yield from (Warned(message) for message in dict.fromkeys(str(one.message) for one in caught))
    yield Finished()


def warm_up(device: torch.device) -> None:
    """Run a tiny backward pass, so that no optimizer's figures hold torch's own start-up."""
    weight = torch.ones(8, 8, device=device, requires_grad=True)
    targets = torch.zeros(8, dtype=torch.long, device=device)
    torch.autograd.backward(torch.nn.functional.cross_entropy(weight @ weight, targets))


@dataclass(frozen=True)
class Trainer:
    """A model and what trains it."""

    settings: Settings
    device: torch.device
    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler

    @classmethod
    def build(cls, settings: Settings, contender: Contender) -> Trainer:
        """Make the same start for every contender: seed, model, optimizer, schedule."""
        device = torch.device(settings.device)
        torch.manual_seed(settings.seed)
        dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        module = model.build(settings, dtype).to(device).train()
        spec = hub.describe(contender.name)
        optimizer = hub.build(
            contender.name,
            module,
            optim_args=contender.optim_args or None,
            target_modules=settings.target_modules if hub.Trait.LOW_RANK in spec.traits else None,
            precision=settings.precision,
            max_grad_norm=settings.max_grad_norm,
        )
        scheduler = settings.lr_scheduler and hub.build_scheduler(
            settings.lr_scheduler,
            optimizer,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=settings.steps,
        )
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16-mixed")
        torch.manual_seed(settings.seed)  # what building drew must not show in dropout
        return cls(settings, device, module, optimizer, scheduler, scaler)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(one.numel() for one in self.model.parameters() if one.requires_grad)

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument that the optimizer was built with."""
        plan: Plan = self.optimizer.hub_plan  # type: ignore[attr-defined]
        return {argument.name: argument.value for argument in plan.arguments}

    def held_bytes(self) -> int:
        """Bytes of the parameters, and of the state that already exists."""
        weights = sum(tensor_bytes(one) for one in self.model.parameters())
        return weights + memory.state_bytes(self.optimizer)

    def step(self, step: int, batch: Tensor) -> Stepped:
        """Train on one batch; the time is that of the whole step."""
        start = time.perf_counter()
        loss = self._loss(batch)
        if self.arguments.get("clipping") == "exact":
            hub.grad_norm(self.optimizer, loss)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)  # clips first, if `hub.build` was told to
        self.scaler.update()
        self.optimizer.zero_grad()
        value = loss.item()  # waits for the device, so that the clock sees the whole step
        seconds = time.perf_counter() - start
        self._step_schedule(value)
        return Stepped(step, _finite(value, f"step {step}"), seconds)

    def evaluate(self, moment: Literal["before", "after"], text: Corpus) -> Evaluated:
        """Return the mean loss on the held-out text, with the optimizer's evaluation weights."""
        shape = self.settings.batch_size, self.settings.sequence_length
        self.model.eval()
        with hub.eval_mode(self.optimizer), torch.no_grad():
            losses = [
                (self._loss(batch).item(), len(batch))
                for batch in corpus.evaluation_batches(text, *shape)
            ]
        self.model.train()
        mean = sum(loss * size for loss, size in losses) / sum(size for _, size in losses)
        return Evaluated(moment, _finite(mean, f"the evaluation {moment} training"))

    def _loss(self, batch: Tensor) -> Tensor:
        mixed = self.settings.precision.endswith("-mixed")
        dtype = torch.float16 if self.settings.precision == "fp16-mixed" else torch.bfloat16
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype, enabled=mixed):
            loss: Tensor = self.model(input_ids=batch, labels=batch, use_cache=False).loss
        return loss

    def _step_schedule(self, loss: float) -> None:
        if self.scheduler is None:
            return
        if "metrics" in signature(self.scheduler.step).parameters:  # it watches the loss
            self.scheduler.step(loss)
        else:
            self.scheduler.step()


def _finite(loss: float, where: str) -> float:
    if not math.isfinite(loss):
        raise HubError(
            f"the loss is {loss}", where=where, fix="a smaller learning rate, or warm-up"
        )
    return loss


def device_in_words(device: torch.device, threads: int | None = None) -> str:
    """Name a GPU, or a kind of CPU and how many threads compute on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = threads or torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"
