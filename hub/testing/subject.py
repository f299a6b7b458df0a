"""One optimizer in one setting: how the checks build and train it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from hub.building.build import build_prepared
from hub.errors import HubWarning
from hub.names.registry import Registry, default_registry
from hub.planning.call import BuildCall
from hub.planning.prepare import prepare
from hub.quiet import no_warnings
from hub.spec import Trait
from hub.testing.kit_model import Model, batch, loss_of, make_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.spec import OptimizerSpec

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
AnyModel = TypeVar("AnyModel", bound=nn.Module)
LR = 1e-2
LARGE = 0.5
STEPS = 6
"""RAdam's rectified phase, in which eps and betas count, begins at the sixth."""


@dataclass(frozen=True)
class Subject:
    """An optimizer name at a precision on a device; `registry` is where it is looked up.

    The checks of P9 run in `processes`, of which they need two or more.
    """

    name: str
    precision: str = "fp32"
    device: str = "cpu"
    registry: Registry = field(default_factory=default_registry, compare=False)
    processes: int = 1

    @property
    def spec(self) -> OptimizerSpec:
        """What the optimizer says about itself."""
        return self.registry.optimizer(self.name)

    @property
    def low_rank(self) -> bool:
        """Whether it takes target modules."""
        return Trait.LOW_RANK in self.spec.traits

    @property
    def in_backward(self) -> bool:
        """Whether it steps inside the backward pass."""
        return Trait.STEPS_IN_BACKWARD in self.spec.traits

    @property
    def lr(self) -> float:
        """The learning rate that the checks build with."""
        return float(self.spec.example_arguments.get("lr", LR))

    def has(self, *arguments: str) -> bool:
        """Whether the optimizer has all these arguments."""
        return set(arguments) <= set(self.spec.arguments.model_fields)

    def model(self) -> Model:
        """Return the kit's model in this setting."""
        return make_model(DTYPES[self.precision], self.device)

    def build(self, model: nn.Module, **arguments: Any) -> Optimizer:
        """Build the optimizer for a model; warnings about precision are expected and silent.

        Args:
            model: From `model()`, or one like it.
            arguments: Of `hub.build`, or of the optimizer.
        """
        with no_warnings(HubWarning):
            return build_prepared(prepare(self._call(model, arguments), registry=self.registry))

    def own_names(self) -> set[str]:
        """Return the names of the parameters that it trains itself, and not its rest."""
        plan = prepare(self._call(self.model(), {}), registry=self.registry).plan
        return {p.name for g in plan.groups if g.optimizer in ("", self.name) for p in g.parameters}

    def _call(self, model: nn.Module, arguments: Mapping[str, Any]) -> BuildCall:
        values: dict[str, Any] = {"lr": self.lr} if self.has("lr") else {}
        if self.low_rank:
            values["target_modules"] = "all-linear"
        values |= {**self.spec.example_arguments, **arguments}
        if Trait.MATRICES_ONLY in self.spec.traits:
            values["rest"] = {**self._shared_with_rest(values), **values.get("rest", {})}
        return BuildCall(self.name, model, **values)

    def _shared_with_rest(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what both halves are built with, so that checks find one value in all groups."""
        known = self.registry.optimizer(self.spec.rest).arguments.model_fields
        return {
            key: values[key] for key in ("lr", "weight_decay") if key in values and key in known
        }

    def start(self, **arguments: Any) -> tuple[Model, Optimizer]:
        """Return a fresh model and its optimizer."""
        model = self.model()
        return model, self.build(model, **arguments)


def backward(model: Model, step: int, parts: int = 1) -> Tensor:
    """Compute the gradients of a step, in `parts` micro-batches; return its loss."""
    model.take_detour = step % 2 == 0
    total = torch.zeros(())
    for tokens in batch(step).chunk(parts):
        loss = loss_of(model, tokens) / parts
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach().cpu()
    return total


def train(
    model: Model,
    optimizer: Optimizer,
    steps: int,
    start: int = 0,
    after_step: Callable[[], Any] = lambda: None,
) -> list[float]:
    """Take steps on data that depends on the step's number only; return the losses."""
    losses = []
    for step in range(start, start + steps):
        losses.append(backward(model, step).item())
        optimizer.step()
        optimizer.zero_grad()
        after_step()
    return losses


def train_on_fixed_gradients(model: AnyModel, optimizer: Optimizer, steps: int = STEPS) -> AnyModel:
    """Take steps on given gradients, so that what one parameter does shows in no other."""
    for step in range(steps):
        give_gradients(model, step)
        optimizer.step()
    return model


def give_gradients(model: nn.Module, step: int) -> None:
    """Set the gradients to random numbers, which are the same for the same step."""
    for index, parameter in enumerate(model.parameters()):
        if parameter.requires_grad:
            generator = torch.Generator().manual_seed(100 * step + index)
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter)


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Return the names whose tensors are not equal bit for bit."""
    return [name for name in a if not torch.equal(a[name], b[name])]


def may_round_away(subject: Subject) -> set[str]:
    """Return the parameters whose updates may round to nothing.

    In bf16 and fp16 that happens where the weight is large, as the ones of a norm are.
    """
    if subject.precision in ("fp32", "fp64"):
        return set()
    return {name for name, p in subject.model().named_parameters() if p.max() >= LARGE}
