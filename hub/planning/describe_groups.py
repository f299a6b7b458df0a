"""`hub.describe_groups`: which parameters an optimizer trains with which settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from hub.running.steps import unwrapped
from hub.terminal import as_text, literal
from hub.text import listed, shape_text

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class GroupSummary:
    """One parameter group."""

    name: str
    """The name that hub gave it, or its number."""
    lr: float | None
    """The current learning rate; None if the optimizer has none, or computes it."""
    weight_decay: float | None
    tensors: int
    elements: int
    parameters: tuple[str, ...]
    """Their names, or shapes such as "16×4" if the optimizer has no names."""


@dataclass(frozen=True)
class GroupSummaries:
    """The parameter groups of an optimizer, printable as a table."""

    groups: tuple[GroupSummary, ...]

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def __rich__(self) -> Table:
        table = Table("group", "lr", "weight decay", "tensors", "elements", "parameters")
        for group in self.groups:
            table.add_row(
                literal(group.name),
                _number(group.lr),
                _number(group.weight_decay),
                f"{group.tensors:,}",
                f"{group.elements:,}",
                literal(listed(group.parameters, 2)),
            )
        return table


def describe_groups(optimizer: Optimizer) -> GroupSummaries:
    """Summarize the parameter groups of any torch optimizer.

    Args:
        optimizer: Built by hub or not; it may be wrapped, for instance by Accelerate.
    """
    return GroupSummaries(
        tuple(
            _summary(number, group)
            for number, group in enumerate(unwrapped(optimizer).param_groups)
        )
    )


def _summary(number: int, group: dict[str, Any]) -> GroupSummary:
    parameters = group["params"]
    shapes = [shape_text(parameter.shape) for parameter in parameters]
    return GroupSummary(
        name=str(group.get("name", number)),
        lr=_float(group.get("lr")),
        weight_decay=_float(group.get("weight_decay")),
        tensors=len(parameters),
        elements=sum(parameter.numel() for parameter in parameters),
        parameters=tuple(group.get("param_names", shapes)),
    )


def _float(value: Any) -> float | None:
    """Return a plain number, also of a learning rate in a tensor."""
    return None if value is None else float(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
