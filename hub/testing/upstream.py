"""A plugin beside the upstream class that it wraps, for the plugin's own tests.

    from hub.testing.upstream import Wrapped, arguments_match, continues, equals_class

    WRAPPED = Wrapped("my_optimizer", upstream.MyOptimizer, {"lr": 0.01, "betas": (0.8, 0.95)})


    def test_the_arguments_are_upstreams():
        arguments_match("my_optimizer", upstream.MyOptimizer)


    def test_it_is_the_upstream_optimizer():
        equals_class(WRAPPED)


    def test_a_checkpoint_of_upstream_is_continued():
        continues(WRAPPED.by_hand, WRAPPED.build)

What the conformance kit checks for every name need not be tested again.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from hub.building.build import build
from hub.names import describe
from hub.testing.comparing import assert_same, through_a_file
from hub.testing.expect import expect
from hub.testing.import_checks import builds_quietly, imports_nothing
from hub.updates import kernel

__all__ = [
    "Wrapped",
    "arguments_match",
    "builds_quietly",
    "by_distributed",
    "by_file",
    "by_pickle",
    "compilations",
    "continues",
    "equals_class",
    "gradients",
    "groups_of",
    "imports_nothing",
    "loss_at",
    "small_model",
    "train",
]

AnyModel = TypeVar("AnyModel", bound=nn.Module)
Run = tuple[nn.Module, Optimizer]
"""A model and the optimizer that trains it."""
Own = tuple[Collection[str], Mapping[str, Any]]
"""Names of parameters that are a group by themselves, and what the group sets."""
BATCH = 8


def small_model(
    dtype: torch.dtype = torch.float32, widths: Sequence[int] = (16, 32, 8)
) -> nn.Sequential:
    """Return linear layers with a LayerNorm after the first, the same every time.

    Args:
        dtype: Of all parameters.
        widths: Features before the first layer, and after each.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, *others = (nn.Linear(*sides) for sides in pairwise(widths))
        return nn.Sequential(first, nn.LayerNorm(widths[1]), *others).to(dtype)


def gradients(model: nn.Module, step: int) -> float:
    """Set the gradients to those of one batch, the same for the same step; return its loss."""
    model.zero_grad()
    loss = loss_at(model, step)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def loss_at(model: nn.Module, step: int) -> torch.Tensor:
    """Return the loss of one batch, the same for the same step and weights."""
    loss: torch.Tensor = (model(_inputs(model, step)).float() - 1.0).square().mean()
    return loss


def _inputs(model: nn.Module, step: int) -> torch.Tensor:
    """Return tokens or features, whichever the model's first layer takes."""
    generator = torch.Generator().manual_seed(step)
    first = next(m for m in model.modules() if isinstance(m, nn.Embedding | nn.Linear))
    if isinstance(first, nn.Embedding):
        tokens = torch.randint(first.num_embeddings, (BATCH, 4), generator=generator)
        return tokens.to(first.weight.device)
    return torch.randn(BATCH, first.in_features, generator=generator).to(first.weight)


def train(model: AnyModel, optimizer: Optimizer, steps: Sequence[int]) -> AnyModel:
    """Take the steps of these numbers; return the model."""
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


@dataclass(frozen=True)
class Wrapped:
    """A name of hub, and the upstream class that its plugin wraps.

    Attributes:
        name: As in `hub.build`.
        cls: The upstream class.
        arguments: What both are built with.
        ours: What only `hub.build` is given.
        theirs: What only the upstream class is given.
        targets: Names of target modules, whose weights are a group by themselves.
        low_rank: The arguments that only this group has.
        model: Returns the model to train, in a dtype.
        make: Builds the upstream class, where that takes more than a call.
    """

    name: str
    cls: type[Optimizer]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)
    targets: Sequence[str] = ()
    low_rank: Collection[str] = ()
    model: Callable[[torch.dtype], nn.Module] = small_model
    make: Callable[..., Optimizer] | None = None

    def build(self, model: nn.Module, **changes: Any) -> Optimizer:
        """Build it with hub, with some arguments changed or added."""
        targets = {"target_modules": list(self.targets)} if self.targets else {}
        return build(self.name, model, **{**self.arguments, **self.ours, **targets, **changes})

    def by_hand(self, model: nn.Module, own: Sequence[Own] = (), **changes: Any) -> Optimizer:
        """Build the upstream class over the same groups, with some arguments changed or added."""
        arguments = {**self.arguments, **self.theirs, **changes}
        low_rank = {key: arguments.pop(key) for key in self.low_rank if key in arguments}
        targets = [([f"{name}.weight" for name in self.targets], low_rank)] if self.targets else []
        make = self.make or self.cls
        return make(groups_of(model, *own, *targets), **arguments)


def groups_of(model: nn.Module, *own: Own) -> list[dict[str, Any]]:
    """Return the groups that hub makes of a model, for an optimizer that is built by hand.

    They are the weights, the parameters without weight decay, and those with their own settings.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    taken = {name for names, _ in own for name in names}
    others = [p for name, p in named.items() if name not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1]},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},  # noqa: PLR2004
        *({"params": [named[name] for name in names], **settings} for names, settings in own),
    ]
    return [group for group in groups if group["params"]]


def equals_class(
    wrapped: Wrapped,
    *,
    dtype: torch.dtype = torch.float32,
    steps: int = 8,
    own: Sequence[Own] = (),
    ours: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[Run, Run]:
    """Hold what hub builds to the upstream class over the same groups, bit for bit.

    Args:
        wrapped: The two.
        dtype: Of the model.
        steps: How many to take.
        own: Groups with their own settings; `ours` has the rules that make them.
        ours: What only `hub.build` is given.
        changes: Arguments of both.

    Returns:
        What hub built, and what was built by hand; both after the steps.

    Raises:
        AssertionError: It is not an instance of the class, or a weight differs.
    """
    model, other = wrapped.model(dtype), wrapped.model(dtype)
    optimizer = wrapped.build(model, **changes, **(ours or {}))
    reference = wrapped.by_hand(other, own, **changes)
    expect(
        isinstance(optimizer, wrapped.cls),
        f"{type(optimizer)} is not a subclass of {wrapped.cls}",
    )
    assert_same(train(model, optimizer, range(steps)), train(other, reference, range(steps)))
    return (model, optimizer), (other, reference)


def by_file(saved: Run, fresh: Run) -> None:
    """Load what a file holds that `torch.load(weights_only=True)` can read."""
    _load(fresh, through_a_file([part.state_dict() for part in saved]))


def by_pickle(saved: Run, fresh: Run) -> None:
    """Load what was pickled, objects of upstream's among it."""
    states = pickle.dumps([part.state_dict() for part in saved])
    _load(fresh, pickle.loads(states))  # noqa: S301 - our own


def _load(fresh: Run, states: Sequence[Any]) -> None:
    model, optimizer = fresh
    model.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])


def by_distributed(saved: Run, fresh: Run) -> None:
    """Load what the functions of `torch.distributed.checkpoint` save."""
    fresh[0].load_state_dict(saved[0].state_dict())
    set_optimizer_state_dict(*fresh, copy.deepcopy(get_optimizer_state_dict(*saved)))


def continues(
    *builds: Callable[..., Optimizer],
    model: Callable[[], nn.Module] = small_model,
    steps: int = 4,
    hand_over: Callable[[Run, Run], None] = by_file,
    **arguments: Any,
) -> Run:
    """Hold a run that is saved and loaded to one that is not, bit for bit.

    Args:
        builds: Build the optimizer of each part of the run; the first also that of the whole run.
        model: Returns a fresh model, the same each time.
        steps: How many each part takes.
        hand_over: Loads what one part saved into the next.
        arguments: Of all `builds`.

    Returns:
        The model and the optimizer of the last part.

    Raises:
        AssertionError: A weight differs.
    """
    whole, part = model(), model()
    train(whole, builds[0](whole, **arguments), range(steps * len(builds)))
    run = part, builds[0](part, **arguments)
    train(*run, range(steps))
    for number, following in enumerate(builds[1:], 1):
        fresh = model()
        again = fresh, following(fresh, **arguments)
        hand_over(run, again)
        run = again
        train(*run, range(number * steps, (number + 1) * steps))
    assert_same(run[0], whole)
    return run


def arguments_match(
    name: str,
    cls: Callable[..., Any],
    left_out: Collection[str] = (),
    other_defaults: Mapping[str, Any] | None = None,
) -> None:
    """Hold the arguments of a name, and their defaults, to the signature of the upstream class.

    Those that hub adds to every optimizer, `rounding` and `offload`, do not count.

    Args:
        name: As in `hub.build`.
        cls: The upstream class.
        left_out: What the plugin does not offer, beside the parameters.
        other_defaults: Where the plugin has another default, or an argument that the class lacks.

    Raises:
        AssertionError: They differ, or an exception is not needed, or an argument has no
            description.
    """
    first, *others = inspect.signature(cls).parameters.values()
    theirs = {parameter.name: parameter.default for parameter in others}
    own = dict(other_defaults or {})
    gone = sorted(set(left_out) - set(theirs))
    expect(not gone, f"{name} leaves out {gone}, which {cls.__name__} does not have")
    same = sorted(key for key, value in own.items() if key in theirs and theirs[key] == value)
    expect(not same, f"{name} has the defaults of {cls.__name__} in {same}")
    expected = {key: value for key, value in theirs.items() if key not in left_out} | own
    spec = describe(name)
    fields = (spec.own_arguments or spec.arguments).model_fields
    found = {key: info.default for key, info in fields.items()}
    expect(found == expected, f"{name} takes {found}, and {cls.__name__}({first}) {expected}")
    bare = sorted(key for key, info in fields.items() if not info.description)
    expect(not bare, f"arguments of {name} have no description: {bare}")


@contextmanager
def compilations(update: Callable[..., None]) -> Iterator[Any]:
    """Compile an update of `hub.updates.kernel` by a backend that runs its operations one by one.

    Args:
        update: What the kernel was made of.

    Yields:
        A counter, whose `frame_count` is the number of compilations.
    """
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = torch.compile(update, backend=counter, fullgraph=True, dynamic=False)
    torch._dynamo.reset()  # noqa: SLF001 - has no other name
    with patch.object(kernel, "_compiled", lambda *_: compiled):
        yield counter
