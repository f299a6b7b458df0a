"""`target_modules`: the linear layers that an optimizer projects, or whose matrices it trains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hub.arguments.patterns import closest_names, name_matcher
from hub.arguments.values import as_tuples
from hub.errors import TargetModulesError
from hub.groups.flat import is_flattened
from hub.groups.modules import (
    embedding_weights,
    is_linear,
    is_norm,
    output_heads,
    own_matrix,
)
from hub.groups.stacks import Stack, find_stacks
from hub.groups.walk import walk_of
from hub.spec import Finding, Trait
from hub.text import listed, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch.nn import Module, Parameter

    from hub.groups.walk import Walk
    from hub.spec import OptimizerSpec

ALL_LINEAR = ("all-linear", "all_linear")
_FIX = 'target_modules="all-linear", or target_modules=["attn", "mlp"]'
_COMPUTED = "weight computed from other parameters"
_CONTAINER = "a container"


@dataclass(frozen=True)
class Targets:
    """What is selected, by name."""

    modules: Mapping[str, Module] = field(default_factory=dict)
    """Linear layers."""
    stacks: Mapping[str, Parameter] = field(default_factory=dict)
    """3-D parameters, by their own names."""
    findings: tuple[Finding, ...] = ()
    """What was matched and is skipped."""

    @property
    def weights(self) -> set[Parameter]:
        """The 2-D weights of the modules, and the stacks."""
        return {*(own_matrix(module) for module in self.modules.values()), *self.stacks.values()}  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self.modules or self.stacks)

    def among(self, parameters: Collection[Parameter]) -> Targets:
        """Return the targets whose weights are among these parameters."""
        return replace(
            self,
            modules={n: m for n, m in self.modules.items() if own_matrix(m) in parameters},
            stacks={n: stack for n, stack in self.stacks.items() if stack in parameters},
        )


def targets_for(
    spec: OptimizerSpec, model: Module, target_modules: str | Sequence[str] | None
) -> Targets:
    """Return the targets of an optimizer, none if it takes none or cannot train here.

    Raises:
        TargetModulesError: `target_modules` is missing, is not accepted by this optimizer, or is
            wrong as in `select_targets`.
    """
    if not spec.takes_targets:
        if target_modules is None:
            return Targets()
        raise TargetModulesError(
            f"{spec.name} does not accept target_modules",
            where="target_modules",
            fix="leave it out, or choose an optimizer with target modules, such as galore_adamw",
        )
    target_modules = spec.target_modules if target_modules is None else target_modules
    if target_modules is None:
        raise TargetModulesError(
            f"{spec.name} requires target_modules: the linear layers to "
            + ("train in low rank" if Trait.LOW_RANK in spec.traits else "train as matrices"),
            where="target_modules",
            fix=_FIX,
        )
    if is_flattened(model):  # The plan refuses flat pieces, which have no matrices to select.
        return Targets()
    return select_targets(model, target_modules, stacks=Trait.MATRICES_ONLY in spec.traits)


def select_targets(
    model: Module, target_modules: str | Sequence[str], *, stacks: bool = False
) -> Targets:
    """Return the linear layers whose names match, and the stacks of matrices, in model order.

    Only trainable 2-D weights are selected, each once. A weight that is shared with an embedding,
    or computed from other parameters (`torch.nn.utils.parametrizations`), is never selected.
    "all-linear" also skips the output head; a pattern that names an untied head selects it. A
    module of another class that owns a 2-D `weight` is selected if its name ends in a plain
    pattern, as "layers.0.proj" ends in "proj".

    A stack is a trainable 3-D parameter of a module whose class is named for its experts, such as
    `gate_up_proj` of `MixtralExperts`. "all-linear" selects all of them, a pattern those whose
    names match. A 3-D parameter of another module is selected if its name ends in a plain pattern;
    that of a convolution, a norm or an embedding never is.

    Args:
        model: The model, or a copy of it on the meta device.
        target_modules: "all-linear", alone or as a list of one; a pattern, or several, see
            `hub.arguments.patterns.name_matcher`.
        stacks: Whether to select stacks too.

    Raises:
        TargetModulesError: A pattern is malformed, or selects nothing; the error has the closest
            names.
    """
    walk = walk_of(model)
    key = repr(target_modules), stacks
    if key not in walk.remembered:
        walk.remembered[key] = _selected(walk, target_modules, stacks=stacks)
    found: Targets = walk.remembered[key]
    return found


def _selected(walk: Walk, target_modules: str | Sequence[str], *, stacks: bool) -> Targets:
    model, embeddings = walk.model, embedding_weights(walk.model)
    modules = {walk.plain(name): module for name, module in walk.modules}
    named = {**modules, **(find_stacks(model, embeddings) if stacks else {})}
    patterns = _patterns(target_modules)
    selection = _Selection(named, embeddings)
    if len(patterns) == 1 and patterns[0] in ALL_LINEAR:
        return selection.all_linear(output_heads(model))
    matched: dict[str, bool] = {}
    """By name, whether a pattern names the module itself."""
    for pattern in patterns:
        found = _matches(pattern, named)
        if not selection.takes_any(found):
            raise selection.no_match_error(pattern, found)
        matched |= {name: meant or matched.get(name, False) for name, meant in found.items()}
    return selection.take({name: matched[name] for name in named if name in matched})


def _patterns(target_modules: object) -> list[str]:
    patterns = (target_modules,) if isinstance(target_modules, str) else as_tuples(target_modules)
    if not isinstance(patterns, tuple | set | frozenset) or not patterns:
        raise TargetModulesError(
            f"target_modules={shown(target_modules)} names no modules",
            where="target_modules",
            fix=_FIX,
        )
    return list(patterns)


def _matches(pattern: str, named: Mapping[str, Module | Stack]) -> dict[str, bool]:
    """Return the names that match, or whose module of experts does, in the order of `named`."""
    matches = name_matcher(pattern, where="target_modules")
    return {
        name: f".{name}".endswith(f".{pattern}")
        for name, thing in named.items()
        if matches(name) or (isinstance(thing, Stack) and matches(name.rpartition(".")[0]))
    }


@dataclass(frozen=True)
class _Selection:
    """The modules and stacks to select from."""

    named: Mapping[str, Module | Stack]
    embeddings: set[Parameter]

    def all_linear(self, heads: Collection[Module]) -> Targets:
        """Select every linear layer except the heads, and every stack of experts.

        Raises:
            TargetModulesError: There are no others.
        """
        linear = [name for name, thing in self.named.items() if _is_linear_or_experts(thing)]
        targets = self.take(dict.fromkeys(linear, False), heads)
        if not targets:
            raise self._no_linear_error(linear, heads)
        return targets

    def take(self, names: Mapping[str, bool], heads: Collection[Module] = ()) -> Targets:
        """Select those of the named modules and stacks that can be trained as matrices.

        Args:
            names: The names, each with whether a pattern names the module itself.
            heads: Modules to skip.
        """
        modules: dict[str, Module] = {}
        stacks: dict[str, Parameter] = {}
        weights: set[object] = set()
        skipped: dict[str, list[str]] = {}
        for name, meant in names.items():
            thing = self.named[name]
            reason = self.skip_reason(thing, meant=meant, taken=weights, heads=heads)
            if reason is not None:
                skipped.setdefault(reason, []).append(name)
            elif isinstance(thing, Stack):
                stacks[name] = thing.weight
                weights.add(thing.weight)
            else:
                modules[name] = thing
                weights.add(own_matrix(thing))
        skipped.pop(_CONTAINER, None)
        findings = tuple(_skipped_finding(*item) for item in skipped.items())
        return Targets(modules, stacks, findings)

    def takes_any(self, names: Mapping[str, bool]) -> bool:
        """Whether `take` would select one of the named modules and stacks."""
        return any(
            self.skip_reason(self.named[name], meant=meant, taken=set()) is None
            for name, meant in names.items()
        )

    def skip_reason(
        self,
        thing: Module | Stack,
        *,
        meant: bool,
        taken: set[object],
        heads: Collection[Module] = (),
    ) -> str | None:
        """Return why a module or stack is not selected, None if it is."""
        if isinstance(thing, Stack):
            if not (thing.of_experts or meant):
                return f"3-D, and not of experts ({type(thing.owner).__name__})"
            return _skip_reason_of_weight(thing.weight, taken)
        return self._skip_reason_of_module(thing, taken, heads, meant=meant)

    def _skip_reason_of_module(
        self, module: Module, taken: set[object], heads: Collection[Module], *, meant: bool
    ) -> str | None:
        if module in heads:
            return "output head"
        weight = own_matrix(module)
        if not is_linear(module):
            could_be = weight is not None and weight not in self.embeddings and not is_norm(module)
            if not (meant and could_be):
                return self._kind(module)
        if weight is None:
            return f"{_COMPUTED} ({type(module).__name__})"
        if weight in self.embeddings:
            return "weight shared with an embedding"
        return _skip_reason_of_weight(weight, taken)

    def _kind(self, module: Module) -> str:
        """Return what a module is that is not linear."""
        stacked = any(isinstance(s, Stack) and s.owner is module for s in self.named.values())
        if is_container(module) or stacked:
            return _CONTAINER
        return f"not linear ({type(module).__name__})"

    def no_match_error(self, pattern: str, found: Mapping[str, bool]) -> TargetModulesError:
        """Return the error for a pattern that selects none of the modules it matches."""
        if found:
            reasons = Counter(
                self.skip_reason(self.named[name], meant=meant, taken=set())
                for name, meant in found.items()
            )
            what = (
                f"target_modules {pattern!r} matches no linear layer to train, only "
                f"{_counted(reasons)}"
            )
        else:
            what = f"target_modules {pattern!r} matches no module"
        linear = [name for name, thing in self.named.items() if _is_linear_or_experts(thing)]
        return TargetModulesError(
            what, where="target_modules", fix=f"{closest_names(pattern, linear)}; or {_FIX}"
        )

    def _no_linear_error(self, linear: list[str], heads: Collection[Module]) -> TargetModulesError:
        """Return the error for "all-linear" selecting nothing, with what the model has instead."""
        owners = {
            name: thing
            for name, thing in self.named.items()
            if name not in linear and not isinstance(thing, Stack) and not is_container(thing)
        }
        found = Counter(
            self.skip_reason(self.named[name], meant=False, taken=set(), heads=heads)
            for name in linear
        ) + Counter(type(module).__name__ for module in owners.values())
        own = next((name for name in owners if self._could_be_meant(name)), None)
        return TargetModulesError(
            '"all-linear" selects nn.Linear layers, and those of the class Conv1D of Transformers, '
            f"but finds none to train, only {_counted(found)}",
            where="target_modules",
            fix=f'name the modules: target_modules=["{own}"] selects one of any class that owns a '
            "2-D weight"
            if own
            else "use an optimizer that needs no target modules, such as adamw_torch",
        )

    def _could_be_meant(self, name: str) -> bool:
        return self.skip_reason(self.named[name], meant=True, taken=set()) is None


def _is_linear_or_experts(thing: Module | Stack) -> bool:
    return thing.of_experts if isinstance(thing, Stack) else is_linear(thing)


def _skip_reason_of_weight(weight: Parameter, taken: set[object]) -> str | None:
    if not weight.requires_grad:
        return "frozen"
    return "weight shared with a layer already taken" if weight in taken else None


def is_container(module: Module) -> bool:
    """Whether a module has no parameters except those of its children."""
    return all(parameter is None for parameter in module._parameters.values())  # noqa: SLF001 - faster


def _counted(found: Counter[Any], longest: int = 5) -> str:
    parts = [f"{count} {what}" for what, count in found.most_common()]
    return ", ".join(parts[:longest]) + (", …" if len(parts) > longest else "")


def _skipped_finding(reason: str, names: list[str]) -> Finding:
    what = f"matched by target_modules but {reason}: {listed(names)}"
    if not reason.startswith(_COMPUTED):
        return Finding.note(what)
    return Finding.warn(what, "remove the parametrization to have them selected")
