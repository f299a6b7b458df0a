"""The data of a plan, as `hub.plan` returns it, with its printed and its JSON form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Group, RenderableType
from rich.table import Table

from hub.arguments.resolve import Argument
from hub.arguments.values import Value, as_tuples, from_json, to_json
from hub.errors import HubError, UnsupportedError
from hub.spec import Finding, Kind, Level, Precision
from hub.terminal import as_text, literal
from hub.text import listed, shown

ON_META = Finding.refuse(
    UnsupportedError(
        "the model's parameters are on the meta device: there is nothing to optimize yet",
        where="model",
        fix="materialize it first; hub.plan and hub.estimate work on the meta device",
    )
)
"""The refusal to ignore for a plan that is made on the meta device on purpose."""


@dataclass(frozen=True, slots=True)
class Place:
    """How a parameter whose rows are split over several ranks is stepped, and where."""

    kind: Kind
    owner: int | None = None
    """The rank that steps a whole parameter, among those that its rows are split over."""


@dataclass(frozen=True)
class PlannedParameter:
    """One parameter of a group, and why it is there."""

    name: str
    shape: tuple[int, ...]
    """Of the whole parameter, wherever its parts are."""
    dtype: str
    why: str
    place: Place | None = None
    """Only of parameters that FSDP2 shards."""


@dataclass(frozen=True)
class PlannedGroup:
    """One parameter group: its parameters, and the arguments that it overrides."""

    name: str
    overrides: dict[str, Value]
    parameters: tuple[PlannedParameter, ...]
    low_rank: bool = False
    rule: str | None = None
    optimizer: str = ""
    """The optimizer that trains it, if several share the model."""

    @property
    def elements(self) -> int:
        """The number of scalars in the group."""
        return sum(prod(parameter.shape) for parameter in self.parameters)


@dataclass(frozen=True)
class PlannedMember:
    """One of several optimizers that share a model."""

    label: str
    """What the names of its groups begin with; "" for the one that was asked for."""
    optimizer: str
    distribution: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Plan:
    """Everything about one build: printable, comparable, and plain data through `to_dict`."""

    optimizer: str
    distribution: str
    arguments: tuple[Argument, ...]
    target_modules: tuple[str, ...]
    groups: tuple[PlannedGroup, ...]
    precision: Precision
    gradient_accumulation_steps: int
    max_grad_norm: float | None
    findings: tuple[Finding, ...]
    members: tuple[PlannedMember, ...] = ()
    """If several optimizers share the model: all of them, the one that was asked for first."""

    @property
    def values(self) -> dict[str, Any]:
        """The value of each argument, by name."""
        return {argument.name: argument.value for argument in self.arguments}

    def arguments_of(self, optimizer: str) -> dict[str, Any]:
        """Return the values of the arguments of one of the optimizers, by name."""
        members = [m for m in self.members if m.optimizer == optimizer]
        arguments = members[0].arguments if members else self.arguments
        return {argument.name: argument.value for argument in arguments}

    @property
    def refused(self) -> bool:
        """Whether `hub.build` will raise."""
        return self.refusal is not None

    @property
    def refusal(self) -> HubError | None:
        """What `hub.build` will raise: the error of the first finding that refuses, or None."""
        for finding in self.findings:
            if finding.level is Level.REFUSE:
                where = finding.where or self.optimizer
                return finding.error(finding.what, where, finding.fix, self.distribution)
        return None

    def materialized(self) -> Plan:
        """Return the plan without the refusal to build on the meta device."""
        return self.without([ON_META])

    def without(self, findings: Collection[Finding]) -> Plan:
        """Return the plan without some of its findings."""
        kept = tuple(finding for finding in self.findings if finding not in findings)
        return replace(self, findings=kept)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for `json.dumps`; inf is `{"float": "inf"}`."""
        data: dict[str, Any] = to_json(_adapter().dump_python(self, mode="json"))
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Plan:
        """Return the plan from the data of `to_dict`, also after a trip through JSON.

        Raises:
            HubError: The data do not describe a plan.
        """
        try:
            return _adapter().validate_python(from_json(as_tuples(data)))
        except ValidationError as error:
            first = error.errors()[0]
            raise HubError(
                f"the data do not describe a plan: {first['msg']}",
                where=".".join(map(str, first["loc"])) or "Plan.from_dict",
                fix="pass what Plan.to_dict returned",
            ) from error

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def __rich__(self) -> Group:
        return _tables(self)


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


def _tables(plan: Plan) -> Group:
    """Return a plan as tables that rich can print."""
    precision = plan.precision
    title = (
        f"{plan.optimizer} ({plan.distribution})  precision {precision.mode}, "
        f"parameters {'+'.join(precision.dtypes)} on {'+'.join(precision.devices)}"
    )
    extras = [f"{len(plan.target_modules)} target modules"] if plan.target_modules else []
    if plan.gradient_accumulation_steps > 1:
        extras.append(f"{plan.gradient_accumulation_steps} micro-batches per step")
    if plan.max_grad_norm is not None:
        extras.append(f"gradient norm clipped to {plan.max_grad_norm:g}")
    findings = [
        literal(
            f"{finding.level}: " + (f"{finding.where}: " if finding.where else "") + str(finding)
        )
        for finding in plan.findings
    ]
    lines: list[RenderableType] = [literal(title), *([", ".join(extras)] if extras else [])]
    return Group(*lines, _arguments(plan), _groups(plan), *findings)


def _arguments(plan: Plan) -> Table:
    """Return a table of the arguments of all optimizers, each named if there are several."""
    several = ["optimizer"] if plan.members else []
    table = Table(*several, "argument", "value", "from")
    for name, arguments in [(m.optimizer, m.arguments) for m in plan.members] or [
        ("", plan.arguments)
    ]:
        for argument in arguments:
            row = [literal(argument.name), literal(shown(argument.value)), argument.origin]
            table.add_row(*([literal(name)] if several else []), *row)
    return table


def _groups(plan: Plan) -> Table:
    is_sharded = any(p.place is not None for group in plan.groups for p in group.parameters)
    sharded = ["stepped"] if is_sharded else []
    several = ["optimizer"] if plan.members else []
    table = Table(
        "group", *several, "overrides", "tensors", "elements", "why", *sharded, "parameters"
    )
    for group in plan.groups:
        table.add_row(
            literal(group.name),
            *([literal(group.optimizer)] if several else []),
            literal(", ".join(f"{key}={value}" for key, value in group.overrides.items())),
            f"{len(group.parameters):,}",
            f"{group.elements:,}",
            literal(_counted(parameter.why for parameter in group.parameters)),
            *([_stepped(group)] if is_sharded else []),
            literal(listed([parameter.name for parameter in group.parameters], 2)),
        )
    return table


def _stepped(group: PlannedGroup) -> str:
    places = [parameter.place for parameter in group.parameters]
    text = _counted("unsharded" if place is None else place.kind for place in places)
    owners = {place.owner for place in places if place is not None and place.owner is not None}
    ranks = listed([str(owner) for owner in sorted(owners)])
    return f"{text} (by {'rank' if len(owners) == 1 else 'ranks'} {ranks})" if owners else text


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{word} ×{count}" for word, count in Counter(words).most_common(3))
