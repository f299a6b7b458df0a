"""Plans as tables, and the terminal that all of hub's output goes through."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from hub.printable import clean, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hub.groups import PlannedGroup
    from hub.planning import Plan


class Terminal(Console):
    """A console for text of any origin: it is printed as it is, whatever is written in it.

    Control characters are written out, and "[bold]" is not markup.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a text to measure and to render; rich itself leaves a few of them out."""
        return super().render_str(clean(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does, where its own control codes are segments of their own."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else clean(text), style, control)


def literal(text: str, style: str = "") -> Text:
    """Return a text that any console prints as it is."""
    return Text(clean(text), style)


def plan_text(plan: Plan, width: int = 100) -> str:
    """Return a plan as plain text, `width` characters wide."""
    return as_text(plan_renderable(plan), width)


def as_text(renderable: RenderableType, width: int = 100) -> str:
    """Return what rich can print as plain text, `width` characters wide."""
    console = Terminal(file=StringIO(), width=width, color_system=None)
    console.print(renderable)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def plan_renderable(plan: Plan) -> Group:
    """Return a plan as tables that rich can print."""
    facts = plan.precision
    title = (
        f"{plan.optimizer} ({plan.distribution})  precision {facts.mode}, "
        f"parameters {'+'.join(facts.dtypes)} on {'+'.join(facts.devices)}"
    )
    extras = [f"{len(plan.target_modules)} target modules"] if plan.target_modules else []
    if plan.gradient_accumulation_steps > 1:
        extras.append(f"{plan.gradient_accumulation_steps} micro-batches a step")
    if plan.max_grad_norm is not None:
        extras.append(f"gradient norm clipped to {plan.max_grad_norm:g}")
    findings = [
        literal(
            f"{finding.level}: "
            + (f"{finding.where}: " if finding.where else "")
            + finding.what
            + (f"; {finding.fix}" if finding.fix else "")
        )
        for finding in plan.findings
    ]
    lines: list[RenderableType] = [literal(title), *([", ".join(extras)] if extras else [])]
    return Group(*lines, _arguments(plan), _groups(plan), *findings)


def _arguments(plan: Plan) -> Table:
    table = Table("argument", "value", "from")
    for argument in plan.arguments:
        table.add_row(literal(argument.name), literal(shown(argument.value)), argument.origin)
    return table


def _groups(plan: Plan) -> Table:
    table = Table("group", "of its own", "tensors", "elements", "why", "parameters")
    for group in plan.groups:
        table.add_row(
            literal(group.name),
            literal(", ".join(f"{key}={value}" for key, value in group.overrides.items())),
            f"{len(group.parameters):,}",
            f"{elements(group):,}",
            literal(_reasons(group)),
            literal(sample([parameter.name for parameter in group.parameters])),
        )
    return table


def elements(group: PlannedGroup) -> int:
    """Return the number of scalars in a group."""
    total = 0
    for parameter in group.parameters:
        count = 1
        for size in parameter.shape:
            count *= size
        total += count
    return total


def _reasons(group: PlannedGroup) -> str:
    counts = Counter(parameter.why for parameter in group.parameters)
    return ", ".join(f"{why} ×{count}" for why, count in counts.most_common(3))


def sample(names: Sequence[str], count: int = 2) -> str:
    """Return the first of some names."""
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
