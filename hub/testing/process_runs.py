"""Short runs in one process and in several, whose results are compared bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import distributed

from hub.errors import HubError
from hub.names.registry import Registry
from hub.testing.process_model import loss_of, make_net, part_of_batch
from hub.testing.strategies import whole_weights, wrap
from hub.testing.subject import DTYPES, Subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from hub.testing.process_model import Net, Shapes
    from hub.testing.strategies import Strategy

STEPS = 4
EVALUATED_AFTER = 2
PARTS = 2
"""How many ranks have data. The others add zeros, as longer sums round by their order."""
_registries: dict[tuple[EntryPoint, ...] | None, Registry] = {}


@dataclass(frozen=True)
class Setting:
    """What a subject is, for another process."""

    name: str
    precision: str
    entry_points: tuple[EntryPoint, ...] | None
    partner: str = ""
    options: tuple[tuple[str, str], ...] = ()
    device: str = "cpu"

    @classmethod
    def of(cls, subject: Subject) -> Setting:
        """Return the setting of a subject."""
        return cls(
            subject.name,
            subject.precision,
            subject.registry.given,
            subject.partner,
            subject.options,
            subject.device,
        )

    def subject(self) -> Subject:
        """Return the subject in this process."""
        if self.entry_points not in _registries:
            _registries[self.entry_points] = Registry(self.entry_points)
        registry = _registries[self.entry_points]
        return Subject(
            self.name,
            self.precision,
            self.device,
            registry,
            partner=self.partner,
            options=self.options,
        )

    def net(self, shapes: Shapes) -> Net:
        """Return the model in this setting's precision."""
        return make_net(shapes, DTYPES[self.precision])


@dataclass(frozen=True)
class Average:
    """How torch 2.13 averages the gradients of several ranks; with 2 and 4, both are exact."""

    ranks: int
    divides_first: bool = False
    """As DDP does (`Reducer`); FSDP divides the sum."""

    def before(self, gradient: Tensor) -> Tensor:
        """Return what a rank adds to the sum."""
        return gradient * (1 / self.ranks) if self.divides_first else gradient

    def after(self, total: Tensor) -> Tensor:
        """Return what becomes of the sum."""
        return total if self.divides_first else total / self.ranks


@dataclass(frozen=True)
class Run:
    """What a run ended with."""

    weights: list[Tensor]
    evaluated: Tensor
    """The logits of an evaluation after the third step; empty if the run is shorter."""
    refusal: str = ""
    """Why hub refused to train, with all weights as they were; the rest is empty then."""


class Spread:
    """A model that is to be spread over the ranks, and its optimizer.

    Args:
        setting: What to build.
        shapes: Of the model.
        strategy: How to spread it.
    """

    def __init__(self, setting: Setting, shapes: Shapes, strategy: Strategy) -> None:
        self.net = setting.net(shapes)
        self.model: nn.Module = self.net
        self._build = setting.subject().build
        self._strategy = strategy

    def build(self) -> Optimizer:
        """Wrap the model, and build before or after that."""
        if self._strategy.builds_first:
            optimizer = self._build(self.net)
            self.model = wrap(self._strategy, self.net)
            return optimizer
        self.model = wrap(self._strategy, self.net)
        return self._build(self.model)


def together(setting: Setting, shapes: Shapes, strategy: Strategy, steps: int = STEPS) -> Run:
    """Train on this rank, with the others."""
    spread = Spread(setting, shapes, strategy)
    before = whole_weights(spread.model)
    try:
        optimizer = spread.build()
        evaluated = train_together(spread.model, optimizer, range(steps))
    except HubError as error:
        moved = not all(map(torch.equal, before, whole_weights(spread.model)))
        if moved or not error.fix:
            raise
        return Run([], torch.empty(0), error.what)
    return Run(whole_weights(spread.model), evaluated)


def alone(setting: Setting, shapes: Shapes, average: Average, steps: int = STEPS) -> Run:
    """Train in one process, on what the ranks have together; a layerwise form eagerly."""
    net = setting.net(shapes)
    evaluated = train_alone(net, setting.subject().build_eager(net), average, range(steps))
    return Run(whole_weights(net), evaluated)


def train_together(model: nn.Module, optimizer: Optimizer, steps: range) -> Tensor:
    """Take steps on this rank, with the others; return the logits of the evaluation."""
    return _train(model, optimizer, partial(_backward_own, model), steps)


def train_alone(net: Net, optimizer: Optimizer, average: Average, steps: range) -> Tensor:
    """Take the steps of several ranks in one process; return the logits of the evaluation."""
    return _train(net, optimizer, partial(_backward_averaged, net, average), steps)


def _backward_own(model: nn.Module, step: int) -> None:
    """Compute gradients as one rank does; torch averages them."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    weight = _weight(ranks) if rank < PARTS else 0.0
    (loss_of(model, step, rank % PARTS) * weight).backward()  # type: ignore[no-untyped-call]


def _backward_averaged(net: Net, average: Average, step: int) -> None:
    """Compute the gradients of all ranks, and average them in the order of torch."""
    sums: dict[Tensor, Tensor] = {}
    for part in range(PARTS):
        (loss_of(net, step, part) * _weight(average.ranks)).backward()  # type: ignore[no-untyped-call]
        for parameter in net.parameters():
            if parameter.grad is not None:
                share = average.before(parameter.grad)
                sums[parameter] = sums[parameter] + share if parameter in sums else share
                parameter.grad = None
    for tensor, total in sums.items():
        tensor.grad = average.after(total)


def _weight(ranks: int) -> float:
    """Return what the loss of a part counts, a power of two: with 2 or 4 ranks, the mean."""
    return 1.0 if ranks == PARTS else 2.0


def _train(
    model: nn.Module, optimizer: Optimizer, backward: Callable[[int], None], steps: range
) -> Tensor:
    evaluated = torch.empty(0)
    for step in steps:
        backward(step)
        optimizer.step()
        optimizer.zero_grad()
        if step == EVALUATED_AFTER:
            evaluated = _evaluate(model)
    return evaluated


def _evaluate(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(part_of_batch(STEPS, 0)[0])
    model.train()
    return logits
