"""Checks that every argument has its effect, on the parameters it is meant for: P3."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from hub.arguments import InBackward, LowMemory
from hub.errors import HubError, OptimArgsError, PluginError
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.contrasting import contrasts
from hub.testing.expect import expect
from hub.testing.subject import (
    PARTNERS,
    STEPS,
    Subject,
    differing,
    may_round_away,
    train_on_fixed_gradients,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.spec import Contrast

WEIGHT_DECAY = 1.0
OF_OTHER_CHECKS = frozenset({"weight_decay", *InBackward.model_fields, *LowMemory.model_fields})
"""Arguments that `decay` and `clips` look at."""


def hyperparameters(subject: Subject) -> None:
    """P3: every argument has an effect, and one of the groups' own on each update of its groups.

    It is changed, and steps are taken on the same gradients. What is in `per_group` is changed by a
    rule for all parameters, and has to change every parameter of the groups that carry it, and,
    where updates are independent, no other. There, a rule for one parameter has to change this one
    alone. Any other argument has to change at least one parameter.
    """
    spec = subject.spec
    runs = _Runs(subject)
    for name in spec.arguments.model_fields:
        if name in OF_OTHER_CHECKS or name in spec.without_effect:
            continue
        for part in contrasts(spec, name):
            problem = _problem(runs, name, part)
            expect(not problem, f"{name} {problem}")


def _problem(runs: _Runs, name: str, part: Iterable[Contrast]) -> str:
    """Return what is wrong with an argument, in the contrast that shows most; "" is nothing."""
    problems = []
    for contrast in part:
        problem = runs.problem(name, contrast)
        if problem == "":
            return ""
        if problem is not None:
            problems.append(f"{problem}, as {contrast.other[name]!r}")
    return min(
        problems,
        key=len,
        default="has no other value that could be tried: name one in the spec's contrasts",
    )


class _Runs:
    """Steps on given gradients with different arguments, each made once."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.may_round_away = may_round_away(subject)
        self._made: dict[str, tuple[dict[str, Tensor], Optimizer] | None] = {}

    def problem(self, name: str, contrast: Contrast) -> str | None:
        """Return what is wrong with an argument between two values; None: they are not valid."""
        base = self._run(contrast.base)
        pattern = ".*" if base is None else self._everything(base[1], name)
        other = self._run(self._ruled(name, contrast, pattern))
        if base is None or other is None:
            return None
        moved = set(differing(base[0], other[0]))
        if name not in self.subject.spec.per_group or contrast.some:
            return "" if moved else "changes no update"
        with contextlib.suppress(OptimArgsError):  # the build compares it with the plan
            self.subject.start(**contrast.other)
        carrying = self._carrying(other[1], name)
        if not carrying:
            return "is in per_group, and no parameter group has it"
        unreached = carrying - moved - self.may_round_away
        if unreached or not self.subject.all_have(Trait.PER_PARAMETER):
            return f"does not reach {sorted(unreached)}" if unreached else ""
        strangers = moved - carrying
        if strangers:
            return f"reaches {sorted(strangers)}, whose groups do not have it"
        return self._problem_alone(name, contrast, base[0], min(carrying))

    def _everything(self, optimizer: Optimizer, name: str) -> str:
        """Return a pattern of all parameters whose optimizer has an argument."""
        if not self.subject.others:
            return ".*"
        return "|".join(map(re.escape, sorted(self._carrying(optimizer, name)))) or ".*"

    def _carrying(self, optimizer: Optimizer, key: str) -> set[str]:
        """Return the parameters whose groups have a key, without those of the rule's optimizer."""
        return {
            name
            for group in optimizer.param_groups
            if key in group and not (self.subject.partner and group["name"].startswith(PARTNERS))
            for name in group["param_names"]
        }

    def _problem_alone(
        self, name: str, contrast: Contrast, base: dict[str, Tensor], parameter: str
    ) -> str:
        """Return what is wrong with an argument that a rule sets for one parameter."""
        other = self._run(self._ruled(name, contrast, re.escape(parameter)))
        if other is None:
            return ""
        moved = set(differing(base, other[0]))
        if moved - {parameter}:
            return f"of {parameter} alone reaches {sorted(moved - {parameter})}"
        found = parameter in moved | self.may_round_away
        return "" if found else f"of {parameter} alone does not reach it"

    def _ruled(self, name: str, contrast: Contrast, pattern: str) -> Mapping[str, Any]:
        """Return the other arguments; a rule sets what groups can have."""
        own = self.subject.spec.per_group
        if name not in own:
            return contrast.other
        rule = {
            key: value
            for key, value in contrast.other.items()
            if key in own and (key not in contrast.base or contrast.base[key] != value)
        }
        kept = {key: value for key, value in contrast.other.items() if key not in own}
        return {**contrast.base, **kept, "param_rules": {pattern: rule}}

    def _run(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Tensor], Optimizer] | None:
        key = repr(sorted(arguments.items()))
        if key not in self._made:
            self._made[key] = _steps(self.subject, arguments)
        return self._made[key]


def _steps(
    subject: Subject, arguments: Mapping[str, Any]
) -> tuple[dict[str, Tensor], Optimizer] | None:
    try:
        model, optimizer = subject.start(**arguments)
    except PluginError:
        raise
    except HubError:  # values that do not go together
        return None
    train_on_fixed_gradients(model, optimizer, STEPS)
    found = weights(model)
    finite = all(bool(tensor.isfinite().all()) for tensor in found.values())
    return (found, optimizer) if finite else None


def decay(subject: Subject) -> None:
    """P3: weight decay moves exactly the parameters that the plan decays.

    Compared are steps with and without it, on the same gradients that are not zero. After the
    first, what decays has had no way yet to reach other parameters.
    """
    if not subject.has("weight_decay"):
        return
    decayed = _planned(subject)
    first, last = (_decay_moves(subject, steps) for steps in (1, STEPS))
    wrong = (last if subject.all_have(Trait.PER_PARAMETER) else first) - decayed
    expect(not wrong, f"weight decay moves {sorted(wrong)}, which the plan does not decay")
    still = decayed - last
    expect(not still, f"weight decay does not move {sorted(still)}, which the plan decays")


def _planned(subject: Subject) -> set[str]:
    _, optimizer = subject.start(weight_decay=WEIGHT_DECAY)
    plan: Any = optimizer.hub_plan  # type: ignore[attr-defined]
    return {
        parameter.name
        for group in plan.groups
        if group.overrides.get("weight_decay", WEIGHT_DECAY)
        for parameter in group.parameters
    }


def _decay_moves(subject: Subject, steps: int) -> set[str]:
    with_decay, without = (
        train_on_fixed_gradients(*subject.start(weight_decay=value), steps)
        for value in (WEIGHT_DECAY, 0.0)
    )
    return set(differing(weights(with_decay), weights(without)))
