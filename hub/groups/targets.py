"""`target_modules`: the linear layers that an optimizer trains in low rank."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hub.arguments.values import as_tuples
from hub.errors import TargetModulesError
from hub.groups.flat import is_flattened
from hub.groups.modules import (
    embedding_weights,
    is_linear,
    is_norm,
    output_heads,
    own_matrix,
    plain_names,
)
from hub.groups.patterns import closest_names, name_matcher
from hub.spec import Finding, Trait
from hub.text import listed, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch.nn import Module, Parameter

    from hub.spec import OptimizerSpec

ALL_LINEAR = ("all-linear", "all_linear")
_FIX = 'target_modules="all-linear", or target_modules=["attn", "mlp"]'
_COMPUTED = "weight computed from other parameters"
_CONTAINER = "a container"


@dataclass(frozen=True)
class Targets:
    """The selected linear layers by name, and findings about matched layers that are skipped."""

    modules: Mapping[str, Module]
    findings: tuple[Finding, ...]

    @property
    def weights(self) -> set[Parameter]:
        """The 2-D weights of the modules."""
        return {module.weight for module in self.modules.values()}  # type: ignore[misc]

    def among(self, parameters: Collection[Parameter]) -> Targets:
        """Return the targets whose weights are among these parameters."""
        kept = {n: m for n, m in self.modules.items() if m.weight in parameters}
        return replace(self, modules=kept)


def targets_for(
    spec: OptimizerSpec, model: Module, target_modules: str | Sequence[str] | None
) -> Targets:
    """Return the targets of an optimizer, none if it has no low-rank groups or cannot train here.

    Raises:
        TargetModulesError: `target_modules` is missing, is not accepted by this optimizer, or is
            wrong as in `select_targets`.
    """
    if Trait.LOW_RANK in spec.traits:
        if target_modules is None:
            raise TargetModulesError(
                f"{spec.name} requires target_modules: the linear layers to train in low rank",
                where="target_modules",
                fix=_FIX,
            )
        # Flat pieces have no matrices to select; the plan refuses them with this reason.
        return Targets({}, ()) if is_flattened(model) else select_targets(model, target_modules)
    if target_modules is not None:
        raise TargetModulesError(
            f"{spec.name} does not accept target_modules",
            where="target_modules",
            fix="leave it out, or choose an optimizer with low-rank groups such as galore_adamw",
        )
    return Targets({}, ())


def select_targets(model: Module, target_modules: str | Sequence[str]) -> Targets:
    """Return the linear layers whose names match, in model order.

    Only trainable 2-D weights are selected, each once. A weight that is shared with an embedding,
    or computed from other parameters (`torch.nn.utils.parametrizations`), is never selected.
    "all-linear" also skips the output head; a pattern that names an untied head selects it. A
    module of another class that owns a 2-D `weight` is selected if its name ends in a plain
    pattern, as "layers.0.proj" ends in "proj".

    Args:
        model: The model, or a copy of it on the meta device.
        target_modules: "all-linear", alone or as a list of one; a pattern, or several, see
            `hub.groups.patterns.name_matcher`.

    Raises:
        TargetModulesError: A pattern is malformed, or selects nothing; the error has the closest
            names.
    """
    plain = plain_names(model)
    named = {plain(name): module for name, module in model.named_modules()}
    patterns = _patterns(target_modules)
    selection = _Selection(named, embedding_weights(model))
    if len(patterns) == 1 and patterns[0] in ALL_LINEAR:
        return selection.all_linear(output_heads(model))
    matched: dict[str, bool] = {}
    """By name, whether a pattern names the module itself."""
    for pattern in patterns:
        found = _matches(pattern, named)
        if not selection.take(found).modules:
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


def _matches(pattern: str, names: Iterable[str]) -> dict[str, bool]:
    matches = name_matcher(pattern, where="target_modules")
    return {name: f".{name}".endswith(f".{pattern}") for name in names if matches(name)}


@dataclass(frozen=True)
class _Selection:
    """The modules to select from."""

    named: Mapping[str, Module]
    embeddings: set[Parameter]

    def all_linear(self, heads: Collection[Module]) -> Targets:
        """Select every linear layer except the heads.

        Raises:
            TargetModulesError: There are no others.
        """
        linear = [name for name, module in self.named.items() if is_linear(module)]
        targets = self.take(dict.fromkeys(linear, False), heads)
        if not targets.modules:
            raise self._no_linear_error(linear, heads)
        return targets

    def take(self, names: Mapping[str, bool], heads: Collection[Module] = ()) -> Targets:
        """Select those of the named modules that can be trained in low rank.

        Args:
            names: The names, each with whether a pattern names the module itself.
            heads: Modules to skip.
        """
        taken: dict[str, Module] = {}
        weights: set[object] = set()
        skipped: dict[str, list[str]] = {}
        for name, meant in names.items():
            module = self.named[name]
            reason = self.skip_reason(module, meant=meant, taken=weights, heads=heads)
            if reason is None:
                taken[name] = module
                weights.add(module.weight)
            elif reason != _CONTAINER:
                skipped.setdefault(reason, []).append(name)
        return Targets(taken, tuple(_skipped_finding(*item) for item in skipped.items()))

    def skip_reason(
        self, module: Module, *, meant: bool, taken: set[object], heads: Collection[Module] = ()
    ) -> str | None:
        """Return why a module is not selected, None if it is."""
        if module in heads:
            return "output head"
        weight = own_matrix(module)
        could_be = weight is not None and weight not in self.embeddings and not is_norm(module)
        if not is_linear(module) and not (meant and could_be):
            return _CONTAINER if is_container(module) else f"not linear ({type(module).__name__})"
        if weight is None:
            return f"{_COMPUTED} ({type(module).__name__})"
        if weight in self.embeddings:
            return "weight shared with an embedding"
        if not weight.requires_grad:
            return "frozen"
        return "weight shared with a layer already taken" if weight in taken else None

    def no_match_error(self, pattern: str, found: Mapping[str, bool]) -> TargetModulesError:
        """Return the error for a pattern that selects none of the modules it matches."""
        if found:
            reasons = Counter(
                self.skip_reason(self.named[name], meant=meant, taken=set())
                for name, meant in found.items()
            )
            what = (
                f"target_modules {pattern!r} matches no linear layer to train in low rank, only "
                f"{_counted(reasons)}"
            )
        else:
            what = f"target_modules {pattern!r} matches no module"
        linear = [name for name, module in self.named.items() if is_linear(module)]
        return TargetModulesError(
            what, where="target_modules", fix=f"{closest_names(pattern, linear)}; or {_FIX}"
        )

    def _no_linear_error(self, linear: list[str], heads: Collection[Module]) -> TargetModulesError:
        """Return the error for "all-linear" selecting nothing, with what the model has instead."""
        owners = {
            name: module
            for name, module in self.named.items()
            if name not in linear and not is_container(module)
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
            else "use an optimizer without low-rank groups, such as adamw_torch",
        )

    def _could_be_meant(self, name: str) -> bool:
        return self.skip_reason(self.named[name], meant=True, taken=set()) is None


def is_container(module: Module) -> bool:
    """Whether a module has no parameters except those of its children."""
    return next(module.parameters(recurse=False), None) is None


def _counted(found: Counter[Any], longest: int = 5) -> str:
    parts = [f"{count} {what}" for what, count in found.most_common()]
    return ", ".join(parts[:longest]) + (", …" if len(parts) > longest else "")


def _skipped_finding(reason: str, names: list[str]) -> Finding:
    what = f"matched by target_modules but {reason}: {listed(names)}"
    if not reason.startswith(_COMPUTED):
        return Finding.note(what)
    return Finding.warn(what, "they train at full rank, unless their parametrization is removed")
