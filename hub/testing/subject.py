"""One optimizer in one setting: how the checks build and train it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from hub.building.build import build_prepared
from hub.errors import HubWarning
from hub.names.registry import Registry, default_registry
from hub.planning.call import BuildCall
from hub.planning.prepare import prepare
from hub.quiet import no_warnings
from hub.running.attach import detach
from hub.spec import Trait
from hub.testing.kit_model import Model, batch, loss_of, make_model
from hub.testing.separate_memory import keep_apart

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
PARTNERS = r"(blocks\.0|norm|up)\..*"
"""What an optimizer's partner trains, here and where several processes train."""
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
    partner: str = ""
    """Another optimizer, which a rule gives some layers."""
    options: tuple[tuple[str, str], ...] = ()
    """Arguments of every build, such as `("rounding", "split")`."""

    @property
    def spec(self) -> OptimizerSpec:
        """What the optimizer says about itself."""
        return self.registry.optimizer(self.name)

    @property
    def others(self) -> dict[str, OptimizerSpec]:
        """What the optimizers that share the model with it say, by the labels of their groups."""
        found = self._rest_of(self.spec, "rest")
        if self.partner:
            partner = self.registry.optimizer(self.partner)
            found |= {PARTNERS: partner, **self._rest_of(partner, f"{PARTNERS}.rest")}
        return found

    @property
    def in_backward(self) -> bool:
        """Whether all of it steps inside the backward pass."""
        return self.all_have(Trait.STEPS_IN_BACKWARD)

    @property
    def lr(self) -> float:
        """The learning rate that the checks build with."""
        return _lr(self.spec)

    def all_have(self, trait: Trait) -> bool:
        """Whether each optimizer of the model has a trait."""
        return all(trait in spec.traits for spec in (self.spec, *self.others.values()))

    def any_has(self, trait: Trait) -> bool:
        """Whether an optimizer of the model has a trait."""
        return any(trait in spec.traits for spec in (self.spec, *self.others.values()))

    def has(self, *arguments: str) -> bool:
        """Whether the optimizer has all these arguments."""
        return set(arguments) <= set(self.spec.arguments.model_fields)

    def model(self) -> Model:
        """Return the kit's model in this setting."""
        return make_model(DTYPES[self.precision], self.device)

    def build(self, model: nn.Module, **arguments: Any) -> Optimizer:
        """Build the optimizer for a model; warnings about precision are expected and silent.

        With `offload`, its state is in other memory between steps, also on the CPU.

        Args:
            model: From `model()`, or one like it.
            arguments: Of `hub.build`, or of the optimizer.
        """
        values = {**usual_arguments(self.spec), **dict(self.options), **arguments}
        own = {
            label: {**usual_arguments(spec), **self._shared(spec, arguments)}
            for label, spec in self.others.items()
        }
        if "rest" in own:
            values["rest"] = own["rest"]
        if self.partner:
            rule = {"optimizer": self.partner, **own[PARTNERS]}
            if f"{PARTNERS}.rest" in own:
                rule["rest"] = own[f"{PARTNERS}.rest"]
            values["param_rules"] = {PARTNERS: rule, **values.get("param_rules", {})}
        with no_warnings(HubWarning):
            call = BuildCall(self.name, model, **values)
            optimizer = build_prepared(prepare(call, registry=self.registry))
        if values.get("offload"):
            keep_apart(optimizer)
        return optimizer

    def _rest_of(self, spec: OptimizerSpec, label: str) -> dict[str, OptimizerSpec]:
        if Trait.MATRICES_ONLY not in spec.traits:
            return {}
        return {label: self.registry.rest_of(spec)}

    def _shared(self, spec: OptimizerSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of a check's arguments that are meant for all optimizers of a model."""
        fields = spec.arguments.model_fields
        shared = {key: arguments[key] for key in ("weight_decay",) if key in arguments}
        if isinstance(arguments.get("lr"), float) and self.lr:
            shared["lr"] = _lr(spec) * arguments["lr"] / self.lr
        return {key: value for key, value in shared.items() if key in fields}

    def build_eager(self, model: nn.Module, **arguments: Any) -> Optimizer:
        """Build the eager form for a model; takes the arguments of `build`."""
        optimizer = self._eager().build(model, **arguments)
        if self._eager().any_has(Trait.STEPS_IN_BACKWARD):  # the eager form has no name
            detach(optimizer)
        return optimizer

    def _eager(self) -> Subject:
        names = (self.name, self.partner)
        specs = [self.registry.optimizer(name) if name else None for name in names]
        name, partner = (
            own if spec is None or spec.eager_spec is None else spec.eager_spec.name
            for own, spec in zip(names, specs, strict=True)
        )
        return replace(self, name=name, partner=partner)

    def start(self, **arguments: Any) -> tuple[Model, Optimizer]:
        """Return a fresh model and its optimizer."""
        model = self.model()
        return model, self.build(model, **arguments)


def usual_arguments(spec: OptimizerSpec) -> dict[str, Any]:
    """Return the arguments that an optimizer is built with, unless a check has others."""
    lr = {"lr": _lr(spec)} if "lr" in spec.arguments.model_fields else {}
    targets = {"target_modules": "all-linear"} if Trait.LOW_RANK in spec.traits else {}
    return {**lr, **targets, **spec.example_arguments}


def _lr(spec: OptimizerSpec) -> float:
    return float(spec.example_arguments.get("lr", LR))


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
