"""The vocabulary of the plugin contract: what plugins declare and what they receive.

All of it is plain frozen data that does not import torch, so a plugin's `hooks.py` imports in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict, Unpack

from hub import errors
from hub.errors import HubError, PrecisionError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from pydantic import BaseModel
    from pydantic_core import CoreSchema
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Trait(StrEnum):
    """A property of an optimizer that decides how hub builds and runs it."""

    LOW_RANK = "low_rank"
    """Projects the gradients of selected linear layers: `target_modules` is required."""

    MATRICES_ONLY = "matrices_only"
    """Trains only matrices: the weights of target modules, and stacks of such weights. Everything
    else is trained by its `rest`."""

    ORTHOGONAL = "orthogonal"
    """Its updates of matrices are nearly orthogonal: all their singular values are about the
    same."""

    PER_PARAMETER = "per_parameter"
    """Updates each parameter independently of the others, so it has a layerwise form."""

    STEPS_IN_BACKWARD = "steps_in_backward"
    """Updates each parameter during the backward pass and frees its gradient ("gradient release");
    see `hub.running`."""

    COMPENSATED = "compensated"
    """Does not round away small updates of bf16 and fp16 parameters."""

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
    """`hub.build` replaces some of the arguments, and warns."""
    NOTE = "note"
    """Only the plan shows it."""


class _ByName:
    """Makes pydantic write an error class as its name, and read it back."""

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(self._name)
        )

    @staticmethod
    def _read(value: Any) -> type[HubError]:
        found = getattr(errors, value, None) if isinstance(value, str) else value
        if not (isinstance(found, type) and issubclass(found, HubError)):
            raise ValueError(f"{value!r} is not one of hub's errors")  # noqa: TRY004 - for pydantic
        return found

    @staticmethod
    def _name(error: type[HubError]) -> str:
        """Return the name of the class, or of its nearest base in hub."""
        return next(base.__name__ for base in error.__mro__ if base.__module__ == errors.__name__)


class _Details(TypedDict, total=False):
    where: str
    instead: Mapping[str, Any]
    without_traits: frozenset[Trait]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that the user should know about a planned build.

    Create it with `refuse`, `warn`, `adjust` or `note`. Its text is `what`, followed by `fix`.
    """

    level: Level
    """How hub reacts to it."""
    what: str
    """The problem, in one sentence."""
    fix: str = ""
    """What the user can do about it."""
    where: str = ""
    """The parameter, module or argument that it concerns, if not the whole build."""
    error: Annotated[type[HubError], _ByName()] = PrecisionError
    """The error that `hub.build` raises, if the level is `REFUSE`."""
    instead: Mapping[str, Any] = field(default_factory=dict)
    """The replacement arguments, by name."""
    without_traits: frozenset[Trait] = frozenset()
    """The traits that the optimizer loses with these arguments."""

    @classmethod
    def refuse(cls, error: HubError) -> Self:
        """Return a finding that makes `hub.build` raise this error."""
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
        """Return a finding that replaces arguments with those in `instead`, with a warning."""
        return cls(level=Level.ADJUST, what=what, fix=fix, **details)

    @classmethod
    def note(cls, what: str, fix: str = "", **details: Unpack[_Details]) -> Self:
        """Return a finding that only the plan shows; it may replace a default silently."""
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
"""Every mode, and the dtype of its parameters. "-mixed" is autocast with fp32 parameters."""


def dtype_name(dtype: Hashable) -> str:
    """Return the short name of a torch dtype: "fp32", "bf16", "fp16", "fp64", or torch's own."""
    return _dtype_name(dtype)


@cache
def _dtype_name(dtype: Hashable) -> str:
    name = str(dtype).removeprefix("torch.")
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
    return short.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precision that a model trains in, as detected from its parameters or declared.

    `dtypes` and `devices` are those of the trainable parameters, ordered by number of elements,
    largest first.
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
    """Two sets of arguments that show the effect of one argument within a few steps.

    Both are added to `OptimizerSpec.example_arguments`.
    """

    base: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of one run."""
    other: Mapping[str, Any]
    """The arguments of the other run, with another value of the argument in question."""
    some: bool = False
    """Whether only some of the updates change, although the argument is a per-group argument."""


Kind = Literal["native", "rows", "whole"]
"""How a sharded parameter is stepped, see `Sharding`."""


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How an optimizer steps parameters that FSDP2 shards by rows (DTensors).

    The default is right for every optimizer with `Trait.PER_PARAMETER`, and moves the most bytes:
    one rank steps the whole parameter.
    """

    kind: Kind = "whole"
    """"native": its operations compute the same with DTensors. "rows": each rank steps its own
    rows. "whole": one rank steps all rows. hub chooses "whole" where `block` or `quantized_from`
    do not allow "rows"."""
    elementwise: bool = False
    """Whether an element's update depends on no other element, so that it also trains the flat
    shards of FSDP1, and large weights with `rounding` in pieces."""
    block: int | str = 1
    """For "rows": of how many elements each block of quantized state is, as a number or as the
    argument that has it. Rows of whole blocks are quantized like the whole parameter."""
    quantized_from: int | str = 0
    """For "rows": the size from which a parameter's state is quantized, likewise."""
    unsplit: frozenset[str] = frozenset()
    """For "rows": the keys of state tensors that all rows share, such as quantization maps."""
    whole_with: str = ""
    """For "rows": the argument with which hub chooses "whole", because the ranks' rows would get
    other random numbers than all rows together."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """Describes one optimizer: its name, arguments, properties and limits."""

    name: str
    """The name that users write, and the name of its entry point."""
    summary: str
    """A one-line summary, without a period."""
    arguments: type[BaseModel]
    """A pydantic model whose fields are the optimizer's arguments, with upstream's defaults."""
    traits: frozenset[Trait] = frozenset()
    """The properties that decide how hub builds and runs it."""
    precisions: frozenset[str] = frozenset({"fp32", "bf16", "bf16-mixed", "fp16-mixed"})
    """The modes of `hub.spec.MODES` in which it trains correctly; hub refuses others."""
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    """The device types it runs on; hub refuses others."""
    per_group: frozenset[str] = frozenset({"lr", "weight_decay"})
    """The arguments that `param_rules` may set for some of the parameters."""
    factory: str = ""
    """The callable that builds it, such as an optimizer class, as "package.module:callable". hub
    imports it for a build, and calls it with the parameter groups and the arguments as keywords. A
    plugin without one implements `hub_build_optimizer`."""
    low_rank: frozenset[str] = frozenset()
    """The arguments that only low-rank groups have. hub puts them into these groups, where
    `param_rules` may override them, and does not pass them to the factory."""
    target_modules: str | None = None
    """The `target_modules` of a build that gives none, such as "all-linear"; None: it has to."""
    rest: str = "adamw_torch"
    """With `Trait.MATRICES_ONLY`: the optimizer of all other parameters, unless the argument
    `rest.optimizer` names another."""
    example_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that suit a tiny model, for `hub check`, `hub doctor` and `hub show`."""
    other_rates: frozenset[str] = frozenset()
    """The arguments, besides `lr`, that set the learning rate of some groups: it is the initial
    `group["lr"]`, and schedules scale it like the others."""
    contrasts: Mapping[str, tuple[Contrast, ...]] = field(default_factory=dict)
    """How `hub check` shows that an argument has an effect, by the argument's name. Only needed if
    changing the argument alone, with `example_arguments`, changes nothing within a few steps. Every
    contrast has to show an effect."""
    without_effect: Mapping[str, str] = field(default_factory=dict)
    """The arguments that do not change updates when `hub check` runs, and why: they select an
    implementation or the format of saved state."""
    known_failures: Mapping[str, str] = field(default_factory=dict)
    """The checks of `hub check` that fail for now, and why. The plan and `hub show` list them, and
    a listed check that passes is an error. A key is a check, such as "resume", or a check and a
    precision, such as "resume-bf16"."""
    state_arguments: frozenset[str] = frozenset()
    """The arguments that decide the layout of the state: hub refuses checkpoints that were saved
    with other values."""
    step_counters: frozenset[str] = frozenset()
    """The keys of a parameter group that a step changes, such as a step count."""
    why_not_layerwise: str = ""
    """The reason why it has no layerwise form, if it is not `PER_PARAMETER`."""
    sharding: Sharding | None = None
    """How it steps parameters sharded by FSDP2 (DTensors). None is `Sharding()` with
    `Trait.PER_PARAMETER`, and a refusal without it."""
    why_not_sharded: str = ""
    """The reason why hub refuses sharded parameters."""
    why_not_offloaded: str = ""
    """The reason why its state cannot be in the host's memory between steps."""
    eager_spec: OptimizerSpec | None = None
    """The eager form's spec, if this is a layerwise form; set by hub."""
    own_arguments: type[BaseModel] | None = None
    """What its plugin declares as `arguments`, to which hub adds `LowMemory`; set by hub."""
    shares_state_with: str = ""
    """The name whose checkpoints it shares, if several names share them."""
    package: str = "torch"
    """The distribution that provides the class."""
    license: str = "BSD-3-Clause"
    """The license of the package."""
    paper: str = ""
    """The URL of the paper."""
    homepage: str = "https://docs.pytorch.org/docs/stable/optim.html"
    """The URL of the package."""
    notes: tuple[str, ...] = ()
    """What users should know before using it, and where hub differs from the package."""

    @property
    def takes_targets(self) -> bool:
        """Whether it takes `target_modules`."""
        return not self.traits.isdisjoint({Trait.LOW_RANK, Trait.MATRICES_ONLY})


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec:
    """Describes one learning-rate schedule: its name, arguments and properties."""

    name: str
    """The name that users write, and the name of its entry point."""
    summary: str
    """A one-line summary, without a period."""
    arguments: type[BaseModel]
    """A pydantic model of its arguments, besides the numbers of warm-up and training steps."""
    build: Callable[[Optimizer, int, int | None, Any], LRScheduler]
    """Called with optimizer, num_warmup_steps, num_training_steps and the validated arguments."""
    needs_training_steps: bool = False
    """Whether `num_training_steps` is required."""
    uses_warmup_steps: bool = True
    """Whether `num_warmup_steps` has an effect."""
    decays: bool = True
    """Whether the learning rate ends below its peak."""
    needs_metric: bool = False
    """Whether `step` takes a metric, such as the loss of an evaluation."""
    example_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for a run of twenty steps, for `hub check`, including all required ones."""
    example_optimizer: tuple[str, Mapping[str, Any]] = ("sgd", {})
    """An optimizer that the schedule works with, and its arguments, for `hub check`."""
    known_failures: Mapping[str, str] = field(default_factory=dict)
    """The checks of `hub check` that fail for now, and why."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """One planned group of parameters."""

    name: str
    """The group's name, also in `optimizer.param_groups`."""
    parameters: tuple[tuple[str, Parameter], ...]
    """Names and tensors, in model order."""
    overrides: Mapping[str, Any]
    """The arguments set on this group. They always include `weight_decay` and, for a low-rank
    group, those of `OptimizerSpec.low_rank`."""
    low_rank: bool = False
    """Whether the parameters are weights of target modules."""


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """What a plugin receives about the model it builds an optimizer for."""

    model: Module
    """The model that the optimizer is built for."""
    groups: tuple[ParameterGroup, ...]
    """The planned groups, in order."""
    precision: Precision
    """The precision that the optimizer steps in: that of the model, but fp32 if hub steps fp32
    copies of bf16 and fp16 weights (`rounding`)."""
    embeddings: frozenset[str] = frozenset()
    """The names of the weights of the model's embeddings, including frozen ones."""
    transposed: frozenset[str] = frozenset()
    """The names of the weights that are stored as (in, out) instead of (out, in), as in the class
    Conv1D of Transformers."""

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the name and tensor of every parameter, group by group."""
        for group in self.groups:
            yield from group.parameters

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter, group by group."""
        for _, parameter in self.named_parameters():
            yield parameter

    def param_groups(self) -> list[dict[str, Any]]:
        """Return new `torch.optim` parameter groups, for an optimizer's constructor.

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
