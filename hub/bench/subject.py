"""An optimizer, the parameters that it steps, and how a step of it is timed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

import hub
from hub.bench import problem
from hub.experiments.clock import Timed
from hub.measuring import tensor_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from hub.bench.settings import Settings
    from hub.experiments.contender import Contender
    from hub.spec import OptimizerSpec

GAP = "update_proj_gap"
"""The argument of optimizers that compute projections anew in every so-many-th step."""
SHORT_GAP = 4
"""Its value in a measurement, where the contender gives no arguments."""


@dataclass(frozen=True)
class Subject:
    """What is measured."""

    settings: Settings
    contender: Contender
    model: nn.Module
    gradients: list[Tensor]

    @classmethod
    def make(cls, settings: Settings, contender: Contender) -> Subject:
        """Make the parameters and their gradients.

        Raises:
            HubError: The name or the model cannot be used.
        """
        hub.describe(contender.name)
        model = problem.make_model(settings)
        return cls(settings, contender, model, problem.make_gradients(model))

    @cached_property
    def spec(self) -> OptimizerSpec:
        """What it is."""
        return hub.describe(self.contender.name)

    @property
    def in_backward(self) -> bool:
        """Whether it steps inside the backward pass."""
        return hub.Trait.STEPS_IN_BACKWARD in self.spec.traits

    @property
    def held(self) -> int:
        """Bytes that are there before it is built: gradients only where they stay."""
        parameters = tensor_bytes(list(self.model.parameters()))
        return parameters if self.in_backward else parameters + tensor_bytes(self.gradients)

    @property
    def usual_gap(self) -> int | None:
        """The steps from one refresh to the next, where the measurement shortens them."""
        field = self.spec.arguments.model_fields.get(GAP)
        return None if field is None or self.contender.optim_args else field.default

    @property
    def gap(self) -> int | None:
        """What they are shortened to."""
        return self.usual_gap and SHORT_GAP

    def build(self) -> Optimizer:
        """Build it.

        Raises:
            HubError: It cannot train these parameters here.
        """
        low_rank = hub.Trait.LOW_RANK in self.spec.traits
        short = {} if self.gap is None else {GAP: self.gap}
        return hub.build(
            self.contender.name,
            self.model,
            optim_args=self.contender.optim_args or short,
            target_modules="all-linear" if low_rank else None,
            precision=self.settings.precision,
        )

    def step(self, optimizer: Optimizer) -> Timed:
        """Return a step of the optimizer, as it is timed."""
        if not self.in_backward:
            self._give(self.model)
            return Timed(lambda _: optimizer.step())

        def run(loss: Any) -> None:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return Timed(run, self._loss)

    def alone(self) -> Timed:
        """Return what of `step` is not the optimizer's: the backward pass, or nothing."""
        if not self.in_backward:
            return Timed(lambda _: None)
        bare = problem.make_model(self.settings)
        for parameter in bare.parameters():
            parameter.register_post_accumulate_grad_hook(_free)  # type: ignore[no-untyped-call]
        return Timed(_backward, lambda: problem.loss_with(bare, self.gradients))

    def fused(self) -> Timed:
        """Return a step of torch's fused AdamW on other parameters of the same shapes."""
        model = problem.make_model(self.settings)
        self._give(model)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        return Timed(lambda _: optimizer.step())

    def _loss(self) -> Tensor:
        return problem.loss_with(self.model, self.gradients)

    def _give(self, model: nn.Module) -> None:
        for parameter, gradient in zip(model.parameters(), self.gradients, strict=True):
            parameter.grad = gradient


def _backward(loss: Any) -> None:
    loss.backward()


def _free(parameter: Tensor) -> None:
    """Free a gradient as it arrives, as a step inside the backward pass does."""
    parameter.grad = None
