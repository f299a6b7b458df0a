"""Which optimizer trains each parameter, if a build asks for several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hub.arguments.patterns import name_matcher
from hub.groups.modules import embedding_weights, output_heads, own_matrix
from hub.groups.targets import targets_for
from hub.spec import Trait
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch.nn import Module, Parameter

    from hub.groups.split import Named, RulePair
    from hub.planning.found import Found

OPTIMIZER = "optimizer"
"""The key of a rule that names the optimizer of what it matches."""


@dataclass(frozen=True)
class Request:
    """An optimizer that a build asks for, with its arguments.

    Attributes:
        label: What the names of its groups begin with.
    """

    label: str
    found: Found
    hyperparameters: Mapping[str, Any]
    target_modules: Any

    @property
    def matrices_only(self) -> bool:
        """Whether it leaves parameters to its rest."""
        return Trait.MATRICES_ONLY in self.found.spec.traits


@dataclass(frozen=True)
class Branch:
    """An optimizer, and that of all parameters which it does not take, if there may be some."""

    own: Request
    rest: Request | None = None

    @property
    def requests(self) -> list[Request]:
        """One or two requests."""
        return [self.own] if self.rest is None else [self.own, self.rest]


@dataclass(frozen=True)
class Router:
    """Assigns parameters to requests by their names and their modules.

    Attributes:
        base: What the call itself asks for.
        rules: All rules in order, each with the branch that it asks for, or None: a plain rule,
            which changes arguments only.
    """

    base: Branch
    rules: Sequence[tuple[RulePair, Branch | None]]

    @property
    def requests(self) -> list[Request]:
        """All requests, in the order of their groups."""
        return [request for branch in self._branches for request in branch.requests]

    @property
    def rests(self) -> list[Request]:
        """The requests for what others do not take, which may be nothing."""
        return [branch.rest for branch in self._branches if branch.rest is not None]

    def used(self, names: Iterable[str]) -> set[int]:
        """Return the numbers of the rules that are the first to match a name."""
        return {found for found in map(self._first, names) if found is not None}

    def plain_rules(self, names: Iterable[str]) -> list[RulePair]:
        """Return the rules that only change arguments, and are the first to match a name."""
        used = self.used(names)
        return [
            pair
            for number, (pair, branch) in enumerate(self.rules)
            if branch is None and number in used
        ]

    def why(self, label: str, reasons: Mapping[str, str]) -> Mapping[str, str]:
        """Return why parameters go to a request, by name: `reasons` for a rest."""
        if any(label == rest.label for rest in self.rests):
            return reasons
        matrices = any(r.label == label and r.matrices_only for r in self.requests)
        return dict.fromkeys(reasons, "matrix") if matrices else {}

    def labels(self, model: Module, named: Named) -> Iterator[str]:
        """Yield the label of the request for each parameter.

        Raises:
            TargetModulesError: `target_modules` are wrong, see `hub.groups.targets`.
        """
        taken: dict[str, set[Parameter]] = {}
        for name, parameter in named:
            branch = self._branch_of(name)
            if branch.rest is None:
                yield branch.own.label
                continue
            label = branch.own.label
            if label not in taken:
                request = branch.own
                taken[label] = targets_for(
                    request.found.spec, model, request.target_modules
                ).weights
            # A model that FSDP1 has flattened has no matrices left, for which its plan refuses it.
            own = parameter in taken[label] or not taken[label]
            yield label if own else branch.rest.label

    @property
    def _branches(self) -> list[Branch]:
        return [self.base, *(branch for _, branch in self.rules if branch is not None)]

    def _branch_of(self, name: str) -> Branch:
        number = self._first(name)
        return self.base if number is None else self.rules[number][1] or self.base

    def _first(self, name: str) -> int | None:
        """Return the number of the first rule that matches."""
        return next((n for n, matches in enumerate(self._matchers) if matches(name)), None)

    @cached_property
    def _matchers(self) -> list[Callable[[str], bool]]:
        return [
            name_matcher(pattern, f"param_rules {shown(pattern)}") for (pattern, _), _ in self.rules
        ]


def reasons(model: Module, named: Named) -> dict[str, str]:
    """Return why an optimizer of matrices leaves parameters to its rest, by name."""
    embeddings = embedding_weights(model)
    heads = {own_matrix(head) for head in output_heads(model)}
    return {
        name: "embedding"
        if parameter in embeddings
        else "output head"
        if parameter in heads
        else "not a target"
        for name, parameter in named
    }
