"""The pictures of a study besides its curves: losses at the end, learning rates, memory, tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.compare import formatting
from hub.compare.report import picture
from hub.compare.report.looks import INK, MUTED
from hub.compare.report.picture import Picture
from hub.compare.result import Purpose, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hub.compare.report.looks import Look
    from hub.compare.report.rows import Row
    from hub.compare.result import Outcome, Results, TaskRecord

ROW_INCHES = 0.42
"""Of a contender in the picture of losses at the end."""
WIDE = 20
"""A ratio of memory or steps from which their axis is logarithmic."""


def at_the_end(rows: Sequence[Row], task: TaskRecord, looks: dict[str, Look]) -> Picture | None:
    """Draw each seed's held-out loss, and the interval of the mean."""
    shown = [row for row in rows if row.loss]
    if not shown:
        return None
    label = picture.unit_label("held-out loss after training", task.unit)
    drawn, axes = picture.axes_of(label, "", height=0.8 + ROW_INCHES * len(shown))
    losses = [one.loss for row in shown for one in row.outcomes if one.loss is not None]
    for place, row in enumerate(shown):
        _dots(axes, row, place, looks[row.contender])
    left, right = picture.limits(losses, _starts(rows), whole=False)
    for place, row in enumerate(shown):
        if row.loss and row.loss.mean > right:
            look = looks[row.contender]
            axes.plot([right], [place], ">", color=look.color, markersize=8, clip_on=False)
    axes.set_xlim(left - 0.2 * (right - left), right)
    axes.set_ylim(len(shown) - 0.6, -0.75)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    beyond = " A triangle at the edge points to a loss beyond it." if max(losses) > right else ""
    several = any(row.loss and row.loss.half_width is not None for row in shown)
    interval = (
        "the filled mark their mean, and the bar its 95 % interval, which may reach beyond the "
        "picture. Contenders whose bars overlap can still be told apart, since they share seeds: "
        "the p values say so."
        if several
        else "and there is one: it says nothing of chance."
    )
    return Picture(
        picture.file_name(task.name, "held-out-loss"),
        "Held-out loss after training",
        f"Further left is better. Each open dot is one seed, {interval}{beyond}",
        drawn,
        {row.contender: looks[row.contender] for row in shown},
    )


def sensitivity(results: Results, task: TaskRecord, looks: dict[str, Look]) -> Picture | None:
    """Draw the held-out loss of each trial over its learning rate."""
    trials = {
        contender: sorted(
            (one for one in results.of(contender, task.name, Purpose.TUNING) if _rate(one)),
            key=lambda one: _rate(one) or 0.0,
        )
        for contender in results.contenders
    }
    trials = {name: found for name, found in trials.items() if len(set(map(_rate, found))) > 1}
    done = [one.loss for found in trials.values() for one in found if one.loss is not None]
    if not done:
        return None
    label = picture.unit_label("held-out loss", task.unit)
    drawn, axes = picture.axes_of("learning rate", label)
    starts = [
        one.evaluations[0].loss for found in trials.values() for one in found[:1] if one.evaluations
    ]
    bottom, top = picture.limits(done, starts, whole=False)
    left = [_trials(axes, found, looks[contender], top) for contender, found in trials.items()]
    picture.logarithmic(axes.xaxis)
    axes.set_ylim(bottom, top)
    names = sorted(
        {name for found in trials.values() for one in found for name in one.run.arguments}
    )
    others = [name for name in names if name != "lr"]
    varied = f" Also varied: {', '.join(others)}." if others else ""
    return Picture(
        picture.file_name(task.name, "learning-rates"),
        "Sensitivity to the learning rate",
        "Each mark is one trial of tuning, the large one a contender's best. A flat valley "
        "forgives a learning rate that is a little off; a best mark at an end of its line asks "
        f"for a wider range.{varied}{picture.marks(any(left), left=False)}",
        drawn,
        {contender: looks[contender] for contender in trials},
    )


def tradeoff(rows: Sequence[Row], task: TaskRecord, looks: dict[str, Look]) -> Picture | None:
    """Draw memory against loss, and the contenders that none beats in both."""
    what, known = "peak memory", _memory(rows, lambda one: one.peak_memory_bytes)
    if not known:
        what, known = "optimizer state", _memory(rows, lambda one: one.state_bytes)
    if len(known) < 2:  # noqa: PLR2004 - one point is no picture
        return None
    divisor, unit = _unit(max(memory for memory, _ in known.values()))
    label = picture.unit_label("held-out loss", task.unit)
    drawn, axes = picture.axes_of(f"{what} ({unit})", label)
    losses = [loss for _, loss in known.values()]
    bottom, top = picture.limits(losses, _starts(rows), whole=False)
    front = [(memory / divisor, loss) for memory, loss in pareto(list(known.values()))]
    axes.plot(*zip(*front, strict=True), color=MUTED, drawstyle="steps-post", zorder=1)
    for contender, (memory, loss) in known.items():
        look = looks[contender]
        marker = look.marker if loss <= top else "^"
        place = memory / divisor, min(loss, top)
        axes.plot(*([one] for one in place), marker, color=look.color, markersize=9, clip_on=False)
    memories = [memory for memory, _ in known.values()]
    axes.set_ylim(bottom, top)
    if min(memories) > 0 and max(memories) / min(memories) > WIDE:
        picture.logarithmic(axes.xaxis)
    axes.margins(x=0.12)
    left = max(losses) > top
    return Picture(
        picture.file_name(task.name, "memory"),
        "Memory against loss",
        f"Further left needs less {what}, further down has the lower mean loss. The gray steps "
        "join the contenders that no other beats in both; small gaps in loss may be noise."
        f"{' A triangle at the top points to a loss above it.' if left else ''}",
        drawn,
        {contender: looks[contender] for contender in known},
    )


def profile(by_task: Mapping[str, Sequence[Row]], looks: dict[str, Look]) -> Picture | None:
    """Draw the performance profile over tasks with a target. Source: Dolan and Moré, 2002."""
    steps = {
        task: {row.contender: row.to_target.step for row in rows if row.to_target}
        for task, rows in by_task.items()
        if any(row.reached for row in rows)
    }
    reached = {task: found for task, found in steps.items() if found}
    if len(steps) < 2 or not reached:  # noqa: PLR2004 - a profile of one task is its table
        return None
    ratios = profiles(reached, list(looks))
    widest = max(1.5, 1.1 * max(one for found in ratios.values() for one in found))
    drawn, axes = picture.axes_of(
        "steps, as a multiple of the fewest", "tasks whose target is reached"
    )
    for contender, found in ratios.items():
        heights = [0.0, *((n + 1) / len(steps) for n in range(len(found)))]
        xs = [1.0, *found, widest]
        axes.plot(xs, [*heights, heights[-1]], **looks[contender].line, drawstyle="steps-post")
    if widest > WIDE:
        picture.logarithmic(axes.xaxis)
    axes.set_xlim(1, widest)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: formatting.percent(value))
    return Picture(
        "performance-profile",
        "Performance profile",
        f"Over {len(steps)} tasks: the part of them whose target a contender reaches within so "
        "many times the steps of the fastest. Higher is better: at 1, on how many it is the "
        "fastest; at the right, on how many it gets there at all, with every seed.",
        drawn,
        {contender: looks[contender] for contender in ratios},
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats or equals in both, from left to right."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def profiles(
    steps: Mapping[str, Mapping[str, float]], contenders: Sequence[str]
) -> dict[str, list[float]]:
    """Return, for each contender, its steps over the fewest, for the tasks that it solved."""
    return {
        contender: sorted(
            found[contender] / min(found.values()) for found in steps.values() if contender in found
        )
        for contender in contenders
    }


def _dots(axes: Any, row: Row, place: int, look: Look) -> None:
    losses = [one.loss for one in row.outcomes if one.loss is not None]
    mean, half = row.loss.mean if row.loss else 0.0, row.loss.half_width if row.loss else None
    if half is not None:
        axes.plot(
            [mean - half, mean + half], [place] * 2, color=look.color, linewidth=3, alpha=0.35
        )
    dots = {"markerfacecolor": "none", "markeredgecolor": look.color, "linestyle": ""}
    axes.plot(losses, [place] * len(losses), "o", **dots)
    if half is not None:
        axes.plot([mean], [place], look.marker, color=look.color, markersize=7)
    axes.annotate(
        picture.label_text(row.contender),
        (0, place - 0.28),
        xycoords=("axes fraction", "data"),
        fontsize=9.5,
        color=INK,
        va="bottom",
    )


def _trials(axes: Any, found: Sequence[Outcome], look: Look, top: float) -> bool:
    """Draw one contender's trials; return whether one diverged or is above the picture."""
    done = [(rate, one.loss) for one in found if (rate := _rate(one)) and one.loss is not None]
    axes.plot(*zip(*done, strict=True), **look.line, marker=look.marker) if done else None
    inside = [one for one in done if one[1] <= top]
    if inside:
        best = min(inside, key=lambda one: one[1])
        axes.plot(*([one] for one in best), look.marker, color=look.color, markersize=10)
    out = [_rate(one) for one in found if one.status is Status.DIVERGED]
    out += [rate for rate, loss in done if loss > top]
    for rate in out:
        picture.leaves(axes, look, rate or 0.0, top)
    return bool(out)


def _rate(outcome: Outcome) -> float | None:
    """Return the learning rate of a training, if it has one above zero."""
    rate = outcome.run.arguments.get("lr", outcome.arguments.get("lr"))
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def _memory(rows: Sequence[Row], figure: Any) -> dict[str, tuple[float, float]]:
    """Return bytes and loss of the contenders, if it is known of all that have a loss."""
    trained = [row for row in rows if row.loss]
    found = {
        row.contender: (memory, row.loss.mean)
        for row in trained
        if row.loss and (memory := row.middle(figure)) is not None
    }
    return found if len(found) == len(trained) else {}


def _unit(largest: float) -> tuple[float, str]:
    """Return the binary unit that bytes are drawn in."""
    size = formatting.size(largest)
    power = ("B", "KiB", "MiB", "GiB").index(size.split()[1])
    return 1024.0**power, size.split()[1]


def _starts(rows: Sequence[Row]) -> list[float]:
    """Return the held-out losses before training."""
    return [one.evaluations[0].loss for row in rows for one in row.outcomes if one.evaluations]
