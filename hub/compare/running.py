"""Run a study: check, train, show and write what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hub
from hub.compare import progress, report, study_file, tasks
from hub.compare.execution.executing import Execution, Watcher
from hub.compare.execution.series import Series
from hub.compare.execution.store import Store
from hub.compare.result import Results, TaskRecord
from hub.compare.writing import make_directory
from hub.errors import HubError
from hub.experiments import extra, versions
from hub.experiments.devices import check_device
from hub.names.registry import default_registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from hub.compare.settings import Settings
    from hub.experiments.contender import Contender
    from hub.names.searching import SearchSpace


def run(settings: Settings, console: Console, say: Callable[[str], str] = str) -> Results:
    """Train the same tasks with each optimizer, as a study asks for.

    A training that fails or diverges is a result. Ctrl-C ends the study early: it returns and
    writes the results so far (`Results.interrupted`). With `out`, each training that is done is
    kept there, and the same study goes on from them when it is run again.

    Every training is a process: a script must call this under `if __name__ == "__main__":`.

    Args:
        settings: What to compare. With `out`, the report is written there.
        console: Shows progress and the table.
        say: Words the errors and warnings of trainings for the console.

    Raises:
        HubError: Nothing can be trained: a name is unknown, the data, model or device cannot be
            used, the folder for the report cannot be written, or a package is missing.
    """
    check(settings)
    names = tasks.expanded(settings.tasks)
    loaded = [tasks.load(name, settings.task_options) for name in names]
    records = [_record(task, settings) for task in loaded]
    series = [
        Series(
            settings, contender.label, record, space=_space(settings, contender), quick=task.quick
        )
        for task, record in zip(loaded, records, strict=True)
        for contender in settings.contenders
    ]
    trainings = sum(one.expected for one in series)
    steps = sum(one.expected * one.task.steps for one in series)
    with progress.shown(trainings, steps, console) as shown:
        execution = Execution(
            settings=settings,
            series=series,
            contenders={one.label: one for one in settings.contenders},
            store=Store(settings.out, settings),
            versions={one.label: versions.collect((one.name,)) for one in settings.contenders},
            watcher=Watcher(found=shown.found, progress=shown.event),
        )
        try:
            execution.run()
        except KeyboardInterrupt:
            console.print("interrupted; the results so far are kept", style="yellow")
    outcomes = execution.results()
    results = Results(
        study=study_file.to_dict(settings),
        tasks=tuple(records),
        versions=versions.collect(tuple(one.name for one in settings.contenders)),
        machines=tuple(dict.fromkeys(one.device for one in outcomes if one.device)),
        outcomes=outcomes,
    )
    report.show(results, console, say)
    if settings.out is not None:
        report.write(results, settings.out)
    return results


def check(settings: Settings) -> None:
    """Find, before minutes of training, what would make them useless.

    Raises:
        HubError: As `run`.
    """
    for contender in settings.contenders:
        hub.describe(contender.name)
        schedule = settings.of(contender, "lr_scheduler")
        if schedule is not None:
            default_registry().source("scheduler", schedule)
        if settings.tune:
            _space(settings, contender)
    names = tasks.expanded(settings.tasks)
    tasks.check_options(names, settings.task_options)
    for name in names:
        tasks.check(name, settings.task_options)
        task = tasks.load(name, settings.task_options)
        for contender in settings.contenders:
            settings.check_steps(contender, settings.steps or task.steps)
        if name not in tasks.BUILT_IN and ":" in name:
            tasks.dry_run(task)
    check_device(settings.device)
    extra.require("scipy")
    if settings.out is not None:
        extra.require("matplotlib", "yaml")
        make_directory(settings.out)


def _space(settings: Settings, contender: Contender) -> SearchSpace | None:
    """Return what is tuned of a contender: what it does not set itself."""
    if not settings.tune:
        return None
    space = hub.search_space(
        contender.name,
        settings.tune_arguments,
        optim_args=contender.optim_args or None,
        strict=False,
    )
    if not space.dimensions:
        raise HubError(
            f"nothing of {contender.label} can be tuned: it has none of "
            f"{', '.join(settings.tune_arguments)}, or sets them",
            where="tune_arguments",
            fix="name other arguments, or leave this contender's out",
        )
    return space


def _record(task: tasks.Task, settings: Settings) -> TaskRecord:
    return TaskRecord(
        name=task.name,
        summary=task.summary,
        unit=task.unit,
        steps=settings.steps or task.steps,
        tokens=task.tokens,
        target=task.target if settings.target is None else settings.target,
        fingerprint=task.fingerprint,
    )
