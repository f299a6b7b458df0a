"""What a plugin declares of an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub.spec.sharding import Sharding
from hub.spec.traits import Trait

if TYPE_CHECKING:
    from pydantic import BaseModel


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
