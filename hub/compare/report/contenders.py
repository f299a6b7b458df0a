"""What the page says of each contender: its settings, its trials, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare import formatting
from hub.compare.report.markup import folded, notes, pairs, row, table, text
from hub.compare.result import Purpose, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.compare.report.looks import Look
    from hub.compare.result import Outcome, Results, TaskRecord


def section(results: Results, contender: str, look: Look) -> str:
    """Return a contender's part of the page."""
    outcomes = [one for one in results.outcomes if one.run.contender == contender]
    parts = [f"<h3>{look.named(contender)}</h3>"]
    parts += [_of_task(results, contender, task) for task in results.tasks]
    parts += [
        notes("The plan of the optimizer says", (x for one in outcomes for x in one.findings)),
        notes("Warnings", (x for one in outcomes for x in one.warnings)),
        *_errors(outcomes),
    ]
    return "\n".join(filter(None, parts))


def _of_task(results: Results, contender: str, task: TaskRecord) -> str:
    """Return settings and trials on one task, named if there are several."""
    prefix = f"{task.name}: " if len(results.tasks) > 1 else ""
    finals = [one for one in results.of(contender, task.name) if one.arguments]
    trials = results.of(contender, task.name, Purpose.TUNING)
    parts = []
    if finals:
        parts.append(pairs({f"{prefix}{key}": value for key, value in _settings(finals[0])}))
        every = {name: formatting.value_text(value) for name, value in finals[0].arguments.items()}
        parts.append(folded(f"{prefix}every argument", pairs(every)))
    if trials:
        parts.append(folded(f"{prefix}all {len(trials)} trials", _trials(trials, task)))
    return "\n".join(parts)


def _settings(one: Outcome) -> Iterator[tuple[str, str]]:
    if one.run.arguments:
        yield "found by tuning", formatting.settings(one.run.arguments)
    changed = {name: one.arguments[name] for name in one.changed if name in one.arguments}
    yield "unlike its defaults", formatting.settings(changed) or "nothing"


def _trials(trials: tuple[Outcome, ...], task: TaskRecord) -> str:
    names = list(dict.fromkeys(name for one in trials for name in one.run.arguments))
    best = min((one.loss for one in trials if one.loss is not None), default=None)
    body = [
        row(
            str(one.run.trial),
            (
                *(f"<td>{text(_value(one, name))}</td>" for name in names),
                f'<td class="left">{text(_trial_end(one, best))}</td>',
            ),
        )
        for one in trials
    ]
    return table(
        f"Trials of tuning, by held-out loss in {task.unit}",
        ("trial", *names, "held-out loss"),
        body,
        "trials",
    )


def _value(one: Outcome, name: str) -> str:
    arguments = one.run.arguments
    return formatting.value_text(arguments[name]) if name in arguments else formatting.UNKNOWN


def _trial_end(one: Outcome, best: float | None) -> str:
    if one.status is Status.DIVERGED:
        return f"diverged at step {one.diverged_at}"
    if one.loss is None:
        return one.status.value
    return f"{formatting.loss(one.loss)}{' (best)' if one.loss == best else ''}"


def _errors(outcomes: list[Outcome]) -> Iterator[str]:
    """Return each error once, with the trainings that it is of and its traceback folded."""
    found: dict[str, list[Outcome]] = {}
    for one in outcomes:
        if one.error and not (one.run.trial is not None and one.status is Status.DIVERGED):
            found.setdefault(one.error, []).append(one)
    if found:
        yield "<h4>Errors</h4>"
    for error, some in found.items():
        where = ", ".join(dict.fromkeys(map(_training, some)))
        yield f'<p class="quiet">{text(where)}</p>\n<pre class="bad">{text(error)}</pre>'
        details = next((one.details for one in some if one.details), "")
        if details:
            yield folded("details", f"<pre>{text(details)}</pre>")


def _training(one: Outcome) -> str:
    if one.run.trial is not None:
        return f"{one.run.task}, trial {one.run.trial}"
    return f"{one.run.task}, seed {one.run.seed}"
