"""`target_modules`: which linear layers an optimizer with low-rank groups takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.errors import TargetModulesError
from hub.modules import embedding_weights, is_linear, output_heads, plain_name
from hub.options import frozen
from hub.patterns import matcher, nearest
from hub.printable import shown
from hub.spec import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch.nn import Module, Parameter

ALL_LINEAR = ("all-linear", "all_linear")
_FIX = 'target_modules="all-linear", or a list such as ["attn", "mlp"]'


@dataclass(frozen=True)
class Targets:
    """The linear layers that were taken, by name, and what was matched but not taken."""

    modules: Mapping[str, Module]
    findings: tuple[Finding, ...]

    @property
    def weights(self) -> set[Parameter]:
        """The 2-D weights of the modules."""
        return {module.weight for module in self.modules.values()}  # type: ignore[misc]


def select(model: Module, target_modules: str | Sequence[str]) -> Targets:
    """Return the linear layers whose names match, in model order.

    Only trainable 2-D weights of linear layers are taken, each once. A weight that is shared with
    an embedding is never taken. "all-linear" also leaves the output head out; a pattern that names
    an untied head takes it.

    Args:
        model: The model, or its meta-device twin.
        target_modules: "all-linear", alone or as a list of one; a pattern, or several, see
            `hub.patterns.matcher`.

    Raises:
        TargetModulesError: A pattern is malformed, or takes nothing; the error has the names
            nearest to it.
    """
    named = {plain_name(name): module for name, module in model.named_modules()}
    embeddings = embedding_weights(model)
    patterns = _patterns(target_modules)
    if len(patterns) == 1 and patterns[0] in ALL_LINEAR:
        linear = [name for name, module in named.items() if is_linear(module)]
        return _take(named, embeddings, linear, output_heads(model))
    matched: dict[str, None] = {}
    for pattern in patterns:
        matches = matcher(pattern, where="target_modules")
        found = [name for name in named if matches(name)]
        if not _take(named, embeddings, found).modules:
            raise _nothing(pattern, named, found, embeddings)
        matched.update(dict.fromkeys(found))
    return _take(named, embeddings, [name for name in named if name in matched])


def _patterns(target_modules: object) -> list[str]:
    patterns = (target_modules,) if isinstance(target_modules, str) else frozen(target_modules)
    if not isinstance(patterns, tuple | set | frozenset) or not patterns:
        raise TargetModulesError(
            f"target_modules={shown(target_modules)} names no modules",
            where="target_modules",
            fix=_FIX,
        )
    return list(patterns)


def _take(
    named: Mapping[str, Module],
    embeddings: set[Parameter],
    names: Iterable[str],
    heads: Collection[Module] = (),
) -> Targets:
    taken: dict[str, Module] = {}
    weights: set[object] = set()
    left: dict[str, list[str]] = {}
    for name in names:
        module = named[name]
        reason = "output head" if module in heads else _why_not(module, embeddings, weights)
        if reason is None:
            taken[name] = module
            weights.add(module.weight)
        elif reason:
            left.setdefault(reason, []).append(name)
    if not taken and heads:
        raise TargetModulesError(
            "the model has no linear layer besides its output head",
            where="target_modules",
            fix="name the modules, or use an optimizer without low-rank groups",
        )
    return Targets(taken, tuple(_left_out(reason, found) for reason, found in left.items()))


def _why_not(module: Module, embeddings: set[Parameter], taken: set[object]) -> str | None:
    """Return why a matched module is not taken, "" if it is only a container, None if it is."""
    if not is_linear(module):
        owns = next(module.parameters(recurse=False), None) is not None
        return f"not linear ({type(module).__name__})" if owns else ""
    if module.weight in embeddings:
        return "weight shared with an embedding"
    if not module.weight.requires_grad:
        return "frozen"
    return "weight shared with a layer already taken" if module.weight in taken else None


def _left_out(reason: str, names: list[str]) -> Finding:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
    return Finding(level=Level.NOTE, what=f"matched by target_modules but {reason}: {shown}")


def _nothing(
    pattern: str, named: Mapping[str, Module], found: list[str], embeddings: set[Parameter]
) -> TargetModulesError:
    if found:
        reasons = Counter(
            _why_not(named[name], embeddings, set()) or "a container" for name in found
        )
        what = f"target_modules {pattern!r} matches no linear layer that can be taken, only " + (
            ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        )
    else:
        what = f"target_modules {pattern!r} matches no module"
    linear = [name for name, module in named.items() if is_linear(module)]
    return TargetModulesError(
        what, where="target_modules", fix=f"{nearest(pattern, linear)}; or {_FIX}"
    )
