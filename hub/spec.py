"""The vocabulary of the plugin contract: what a plugin says about itself and what it is given.

Plain frozen data without torch, so that a plugin's `hooks.py` imports in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self, TypedDict, Unpack

from hub import errors
from hub.errors import HubError, PrecisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import BaseModel
    from pydantic_core import CoreSchema
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Trait(StrEnum):
    """A property of an optimizer that decides how hub builds and runs it."""

    LOW_RANK = "low_rank"
    """Projects the gradients of chosen linear layers: `target_modules` is required."""

    PER_PARAMETER = "per_parameter"
    """The update of one parameter does not depend on another: it has a layerwise form."""

    STEPS_IN_BACKWARD = "steps_in_backward"
    """Updates each parameter in the backward pass and frees its gradient; see `hub.running`."""

    COMPENSATED = "compensated"
    """Small updates of bf16 and fp16 parameters are not rounded away."""

    TRAIN_EVAL_MODES = "train_eval_modes"
    """Has separate weights for evaluation, and `train()` and `eval()`; see `hub.running`."""

    SCHEDULE_FREE = "schedule_free"
    """Anneals by averaging: a decaying learning-rate schedule on top is a mistake."""


class Level(StrEnum):
    """How serious a finding is."""

    REFUSE = "refuse"
    """`hub.build` raises."""
    WARN = "warn"
    """`hub.build` warns with `HubWarning`."""
    ADJUST = "adjust"
    """`hub.build` uses other arguments than were asked for, and warns."""
    NOTE = "note"
    """Only the plan shows it."""


class _ByName:
    """Has pydantic write an error class as its name, and read it back."""

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(self._name)
        )

    @staticmethod
    def _read(value: Any) -> type[HubError]:
        found = getattr(errors, value, None) if isinstance(value, str) else value
        if not (isinstance(found, type) and issubclass(found, HubError)):
            raise ValueError(f"{value!r} is not an error of hub")  # noqa: TRY004 - for pydantic
        return found

    @staticmethod
    def _name(error: type[HubError]) -> str:
        """Return the name of the class, or of the nearest base that hub itself has."""
        return next(base.__name__ for base in error.__mro__ if base.__module__ == errors.__name__)


class _Details(TypedDict, total=False):
    where: str
    instead: Mapping[str, Any]
    without_traits: frozenset[Trait]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a planned build that its user should know.

    Made by `refuse`, `warn`, `adjust` or `note`. As text it is `what`, then `fix` if there is one.
    """

    level: Level
    """What hub does about it."""
    what: str
    """The problem, in one sentence."""
    fix: str = ""
    """What the user can do about it."""
    where: str = ""
    """The parameter, module or argument it is about, if it is not the whole build."""
    error: Annotated[type[HubError], _ByName()] = PrecisionError
    """What `hub.build` raises, if the level is `REFUSE`."""
    instead: Mapping[str, Any] = field(default_factory=dict)
    """The arguments to use instead, by name."""
    without_traits: frozenset[Trait] = frozenset()
    """The traits that the optimizer has in general, but not with these arguments."""

    @classmethod
    def refuse(cls, error: HubError) -> Self:
        """Return a finding that makes `hub.build` raise an error like this one."""
        return cls(
            level=Level.REFUSE,
            what=error.what,
            fix=error.fix,
            where=error.where,
            error=type(error),
        )

    @classmethod
    def warn(cls, what: str, fix: str = "", **details: Unpack[_Details]) -> Self:
        """Return a finding that `hub.build` warns about."""
        return cls(level=Level.WARN, what=what, fix=fix, **details)

    @classmethod
    def adjust(cls, what: str, fix: str = "", **details: Unpack[_Details]) -> Self:
        """Return a finding that replaces arguments by those in `instead`, with a warning."""
        return cls(level=Level.ADJUST, what=what, fix=fix, **details)

    @classmethod
    def note(cls, what: str, fix: str = "", **details: Unpack[_Details]) -> Self:
        """Return a finding that only the plan shows, also where it replaces a mere default."""
        return cls(level=Level.NOTE, what=what, fix=fix, **details)

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}" if self.fix else self.what


MODES: dict[str, str] = {
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "fp16",
    "fp64": "fp64",
    "bf16-mixed": "fp32",
    "fp16-mixed": "fp32",
}
"""Every mode, and the dtype that its parameters have. "-mixed" is autocast over fp32 parameters."""


def dtype_name(dtype: object) -> str:
    """Return the short name of a torch dtype: "fp32", "bf16", "fp16", "fp64", or torch's own."""
    name = str(dtype).removeprefix("torch.")
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
    return short.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What a model trains in, as found from its parameters and as declared by the caller.

    dtypes and devices are those of the trainable parameters, the most numerous elements first.
    """

    mode: str
    """One of `hub.spec.MODES`, such as "fp32", "bf16" or "bf16-mixed"."""
    dtypes: tuple[str, ...]
    """Short dtype names: "fp32", "bf16", "fp16", "fp64"."""
    devices: tuple[str, ...]
    """Device types: "cpu", "cuda", "meta"."""
    grad_scaler: bool = False
    """Whether the loss is scaled, as fp16 training needs."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two sets of arguments between which the effect of one argument shows within a few steps.

    Both come on top of `OptimizerSpec.example_arguments`.
    """

    base: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of one run."""
    other: Mapping[str, Any]
    """Those of the other run, with another value of the argument in question."""
    some: bool = False
    """Whether only some of the updates change, although the argument is one that groups have."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """What one optimizer name is, takes and can do."""

    name: str
    """What users write; the name of its entry point."""
    summary: str
    """One line."""
    arguments: type[BaseModel]
    """A pydantic model whose fields are the optimizer's arguments, their defaults upstream's."""
    traits: frozenset[Trait] = frozenset()
    """What hub has to know about how it works."""
    precisions: frozenset[str] = frozenset({"fp32", "bf16", "bf16-mixed", "fp16-mixed"})
    """The modes of `hub.spec.MODES` it trains correctly in; elsewhere the build is refused."""
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    """The types of devices that it runs on; elsewhere the build is refused."""
    per_group: frozenset[str] = frozenset({"lr", "weight_decay"})
    """The arguments that `param_rules` may set for some of the parameters."""
    factory: str = ""
    """What builds it, as "package.module:callable", such as an optimizer class. hub imports it for
    a build, and calls it with the parameter groups and the arguments by keyword. Without one, the
    plugin has a `hub_build_optimizer`."""
    low_rank: frozenset[str] = frozenset()
    """The arguments that only low-rank groups have: hub puts them there, where rules may replace
    them, and leaves them out of the factory's arguments."""
    example_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that suit a tiny model, for `hub check`, `hub doctor` and `hub show`."""
    other_rates: frozenset[str] = frozenset()
    """The arguments, besides `lr`, that are the learning rate of some groups: `group["lr"]` starts
    there, and schedules scale it with the others."""
    contrasts: Mapping[str, tuple[Contrast, ...]] = field(default_factory=dict)
    """How `hub check` shows that an argument has an effect, by its name, if another value of it
    alone, with `example_arguments`, changes nothing within a few steps. Each has to show."""
    without_effect: Mapping[str, str] = field(default_factory=dict)
    """The arguments that change no update where `hub check` runs, and why: those that choose
    between implementations or say how the state is saved."""
    known_failures: Mapping[str, str] = field(default_factory=dict)
    """The checks of `hub check` that fail for now, and why. The plan and `hub show` show it, and a
    check that passes in spite of it is an error. A key is a check such as "resume", or a check and
    a precision such as "resume-bf16"."""
    state_arguments: frozenset[str] = frozenset()
    """The arguments that shape the state: a checkpoint with other values is refused."""
    step_counters: frozenset[str] = frozenset()
    """The keys of a parameter group that a step changes, such as a step count."""
    why_not_layerwise: str = ""
    """Why there is no layerwise form, if it is not `PER_PARAMETER`."""
    why_not_sharded: str = ""
    """Why parameters sharded by FSDP2 or tensor parallelism (DTensors) are refused, if they are."""
    eager_spec: OptimizerSpec | None = None
    """The eager form, if this is the layerwise one; hub fills it in."""
    shares_state_with: str = ""
    """The name whose checkpoints these are, where several names share them."""
    package: str = "torch"
    """The distribution whose class is built."""
    license: str = "BSD-3-Clause"
    """The license of the package."""
    paper: str = ""
    """Where the algorithm is published, as a URL."""
    homepage: str = "https://docs.pytorch.org/docs/stable/optim.html"
    """Where the package is, as a URL."""
    notes: tuple[str, ...] = ()
    """What to know before using it, and what hub does differently from the package."""


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec:
    """What one learning-rate schedule is and takes."""

    name: str
    """What users write; the name of its entry point."""
    summary: str
    """One line."""
    arguments: type[BaseModel]
    """A pydantic model of its arguments, besides the numbers of warm-up and training steps."""
    build: Callable[[Optimizer, int, int | None, Any], LRScheduler]
    """Called with optimizer, num_warmup_steps, num_training_steps and the validated arguments."""
    needs_training_steps: bool = False
    """Whether `num_training_steps` has to be given."""
    uses_warmup_steps: bool = True
    """Whether `num_warmup_steps` counts."""
    decays: bool = True
    """Whether the learning rate ends below its peak."""
    needs_metric: bool = False
    """Whether `step` takes a metric, as an evaluation measures it."""
    example_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for a run of twenty steps, for `hub check`: at least those it requires."""
    example_optimizer: tuple[str, Mapping[str, Any]] = ("sgd", {})
    """An optimizer that can follow it, and the optimizer's arguments, for `hub check`."""
    known_failures: Mapping[str, str] = field(default_factory=dict)
    """The checks of `hub check` that fail for now, and why."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """One group of parameters, as the plan decided it."""

    name: str
    """The same in `optimizer.param_groups`."""
    parameters: tuple[tuple[str, Parameter], ...]
    """Names and tensors, in model order."""
    overrides: Mapping[str, Any]
    """The arguments that this group has to itself. Its `weight_decay` in any case, and those of
    `OptimizerSpec.low_rank` if it is a low-rank group."""
    low_rank: bool = False
    """Whether these are weights of target modules."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """All that a plugin may want to know about the model it builds an optimizer for."""

    model: Module
    """The model that the optimizer is built for."""
    groups: tuple[ParameterGroup, ...]
    """The planned groups, in order."""
    precision: Precision
    """What the model trains in."""
    embeddings: frozenset[Parameter] = frozenset()
    """The weights of the model's embeddings, frozen ones included."""

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the name and tensor of every parameter, group by group."""
        for group in self.groups:
            yield from group.parameters

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter, group by group."""
        for _, parameter in self.named_parameters():
            yield parameter

    def param_groups(self) -> list[dict[str, Any]]:
        """Return fresh `torch.optim` parameter groups, for an optimizer's constructor.

        Low-rank groups have `low_rank=True`.
        """
        return [
            {
                "params": [parameter for _, parameter in group.parameters],
                "param_names": [name for name, _ in group.parameters],
                "name": group.name,
                **group.overrides,
                **({"low_rank": True} if group.low_rank else {}),
            }
            for group in self.groups
        ]
