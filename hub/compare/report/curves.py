"""Draw losses while contenders train: a line for each, with a band over its seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hub.compare import formatting
from hub.compare.report import picture
from hub.compare.report.looks import MUTED
from hub.compare.result import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hub.compare.report.looks import Look
    from hub.compare.report.picture import Picture
    from hub.compare.report.rows import Row
    from hub.compare.result import Outcome, TaskRecord

SMOOTHING = 0.1
"""A drawn loss is the mean of this part of the steps, up to its own: batches differ."""
POINTS = 150
"""How many points a line has at most."""
BEFORE_AND_AFTER = 2
"""Evaluations that every training has."""


@dataclass(frozen=True)
class Line:
    """One line: of all seeds of a contender that are done, or of one training that is not."""

    contender: str
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    """Of training until then, the mean over the seeds."""
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    diverged: tuple[int, float] | None = None
    """At which step, and after how many seconds of training."""


@dataclass(frozen=True)
class Track:
    """The losses of one training over steps and time, whichever they are."""

    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    losses: tuple[float, ...]


def pictures(rows: Sequence[Row], task: TaskRecord, looks: dict[str, Look]) -> tuple[Picture, ...]:
    """Draw training losses over steps and time, and held-out losses where there are several.

    Raises:
        HubError: matplotlib is missing.
    """
    start = [one.evaluations[0].loss for row in rows for one in row.outcomes if one.evaluations]
    training = lines(rows, trained)
    ended = all(one.status is Status.DONE for row in rows for one in row.outcomes)
    alone = "" if ended else " A training that is not done has a line to itself."
    made = []
    if any(one.steps for one in training):
        smooth = (
            "Each line is the mean of a contender's seeds, smoothed over "
            f"{formatting.percent(SMOOTHING)} of the steps; its band reaches from the lowest seed "
            f"to the highest. Lower is better.{alone}"
        )
        made += [
            _picture(
                training,
                start,
                look=looks,
                name=picture.file_name(task.name, f"training-loss-{over}"),
                title=f"Training loss over {words}",
                caption=f"{smooth} {what}",
                axes=(label, picture.unit_label("training loss", task.unit)),
            )
            for over, words, label, what in (
                ("steps", "steps", "step", "What a contender makes of the same batches."),
                ("time", "time", "training time (s)", "A slow step moves a line to the right."),
            )
        ]
    several = any(len(one.evaluations) > BEFORE_AND_AFTER for row in rows for one in row.outcomes)
    if several:
        held_out = lines(rows, held_out_losses)
        made.append(
            _picture(
                held_out,
                start,
                look=looks,
                name=picture.file_name(task.name, "held-out-loss-steps"),
                title="Held-out loss over steps",
                caption="Each line is the mean of a contender's seeds, its band reaches from the "
                "lowest seed to the highest. Contenders are compared by the right end of their "
                "lines, and by nothing before it.",
                axes=("step", picture.unit_label("held-out loss", task.unit)),
                target=task.target,
            )
        )
    return tuple(made)


def lines(rows: Iterable[Row], track: Any) -> tuple[Line, ...]:
    """Return what to draw of the losses that `track` finds in a training."""
    found = []
    for row in rows:
        done = [track(one) for one in row.outcomes if one.status is Status.DONE]
        others = [one for one in row.outcomes if one.status is not Status.DONE]
        found += [_line(row.contender, done)] if any(done) else []
        found += [
            replace(_line(row.contender, [track(one)]), diverged=_diverged(one))
            for one in others
            if track(one) or _diverged(one)
        ]
    return tuple(found)


def trained(outcome: Outcome) -> Track | None:
    """Return the smoothed training losses, thinned out."""
    curve = outcome.curve
    if not curve:
        return None
    seconds = list(accumulate(point.seconds for point in curve))
    places = thinned(len(curve))
    return Track(
        steps=tuple(curve[place].step for place in places),
        seconds=tuple(seconds[place] for place in places),
        losses=tuple(smoothed([point.loss for point in curve], places, outcome.run.steps)),
    )


def held_out_losses(outcome: Outcome) -> Track | None:
    """Return the evaluations."""
    if not outcome.evaluations:
        return None
    steps, losses, seconds = zip(*outcome.evaluations, strict=True)
    return Track(steps=steps, seconds=seconds, losses=losses)


def thinned(count: int) -> list[int]:
    """Return at most so many places as a line has points, evenly spread, with both ends."""
    if count <= POINTS:
        return list(range(count))
    return [round(n * (count - 1) / (POINTS - 1)) for n in range(POINTS)]


def smoothed(losses: Sequence[float], places: Iterable[int], steps: int) -> list[float]:
    """Return at these places the mean of a loss and those shortly before it.

    Args:
        losses: One a step.
        places: Indices.
        steps: Of a whole training: one that ended early is smoothed like the others.
    """
    width = max(1, int(steps * SMOOTHING))
    return [fmean(losses[max(0, place + 1 - width) : place + 1]) for place in places]


def _diverged(outcome: Outcome) -> tuple[int, float] | None:
    if outcome.diverged_at is None:
        return None
    return outcome.diverged_at, sum(point.seconds for point in outcome.curve)


def _line(contender: str, tracks: Sequence[Track | None]) -> Line:
    whole = [one for one in tracks if one is not None]
    length = min((len(one.steps) for one in whole), default=0)
    losses = list(zip(*(one.losses[:length] for one in whole), strict=True))
    seconds = zip(*(one.seconds[:length] for one in whole), strict=True)
    return Line(
        contender=contender,
        steps=whole[0].steps[:length] if whole else (),
        seconds=tuple(map(fmean, seconds)),
        middle=tuple(map(fmean, losses)),
        low=tuple(map(min, losses)),
        high=tuple(map(max, losses)),
    )


def _picture(
    drawn: Sequence[Line],
    start: Sequence[float],
    *,
    look: dict[str, Look],
    name: str,
    title: str,
    caption: str,
    axes: tuple[str, str],
    target: float | None = None,
) -> Picture:
    figure, place = picture.axes_of(*axes)
    over_time = "time" in axes[0]
    goal = [] if target is None else [target]
    bottom, top = _limits(drawn, start, goal)
    left = [_draw(place, one, look[one.contender], top, over_time=over_time) for one in drawn]
    if target is not None and bottom <= target <= top:
        place.axhline(target, color=MUTED, linewidth=1, linestyle="--")
        caption += " The dashed gray line is the target."
    place.set_ylim(bottom, top)
    place.set_xlim(left=0)
    return picture.Picture(
        name,
        title,
        caption + picture.marks(any(one.diverged for one in drawn), any(left)),
        figure,
        {one.contender: look[one.contender] for one in drawn},
    )


def _limits(
    drawn: Sequence[Line], start: Sequence[float], goal: Sequence[float]
) -> tuple[float, float]:
    """Return the limits by the lines that end no higher than they began, give or take noise."""
    done = [one for one in drawn if not one.diverged] or drawn
    low, first = min(loss for one in done for loss in one.low), max(start, default=math.inf)
    good = [one for one in done if one.middle and one.middle[-1] <= 2 * first - low] or done
    values = [loss for one in good for loss in (*one.low, *one.middle)]
    return picture.limits([*values, *goal], start, whole=True)


def _draw(axes: Any, line: Line, look: Look, top: float, *, over_time: bool) -> bool:
    """Draw a line, and a mark if it ends above the picture or nowhere."""
    xs = line.seconds if over_time else line.steps
    if line.diverged and not xs:  # at its first step
        picture.leaves(axes, look, line.diverged[over_time], top)
        return False
    marker = look.marker if len(xs) == 1 else ""
    axes.plot(xs, line.middle, **look.line, marker=marker)
    if any(low != high for low, high in zip(line.low, line.high, strict=True)):
        axes.fill_between(xs, line.low, line.high, color=look.color, alpha=0.15, linewidth=0)
    above = [x for x, loss in zip(xs, line.middle, strict=True) if loss > top]
    left = line.middle[-1] > top
    end = line.diverged[over_time] if line.diverged else xs[-1]
    if line.diverged and not above:
        axes.plot([xs[-1], end], [line.middle[-1], top], color=look.color, linestyle=":")
    if line.diverged or left:
        picture.leaves(axes, look, above[0] if above else end, top)
    return left
