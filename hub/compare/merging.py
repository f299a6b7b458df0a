"""Join the results of a study that several machines shared."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hub.compare import study_file
from hub.compare.result import Outcome, Purpose, Results, Status, digest
from hub.errors import HubError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hub.compare.result import Run, TaskRecord
    from hub.compare.settings import Settings
    from hub.experiments.contender import Contender

ALIKE = (
    "steps",
    "tune",
    "tune_arguments",
    "sampler",
    "target",
    "evaluate_every",
    "target_modules",
    "lr_scheduler",
    "warmup_steps",
    "max_grad_norm",
    "precision",
)
"""Settings that all have to share: losses, or what they are read for, depend on them. Data, models
and sizes are in the fingerprints of tasks."""
ALIKE_IN_TASKS = ("fingerprint", "steps", "tokens", "unit", "target")
ENDED = (Status.DONE, Status.DIVERGED)


def merge(results: Sequence[Results], names: Sequence[str] = ()) -> Results:
    """Join results: of other contenders, tasks or seeds, or of a study that was cut short.

    Of a training that several have, the first that ended counts; where another one ended with
    another loss, a warning of it says so. It is not a second sample: the seed is the same.

    Args:
        results: In the order that decides which is first.
        names: What messages call them, such as paths.

    Raises:
        HubError: There are none, or some do not belong together; it says which setting differs.
    """
    if not results:
        raise HubError("there are no results to merge", fix="name two or more folders of studies")
    parts = [
        _Part(name or f"results {number}", one)
        for number, (name, one) in enumerate(_named(results, names), 1)
    ]
    for part in parts[1:]:
        _check_alike(parts[0], part)
    tasks = _tasks(parts)
    settings = _settings(parts)
    return Results(
        study=study_file.to_dict(settings),
        tasks=tuple(tasks.values()),
        versions=_versions(results),
        machines=tuple(dict.fromkeys(machine for one in results for machine in one.machines)),
        outcomes=_outcomes(results, list(tasks), [one.label for one in settings.contenders]),
    )


class _Part:
    """Results, what messages call them, and the settings that they are of."""

    def __init__(self, name: str, results: Results) -> None:
        self.name, self.results = name, results
        self.settings = study_file.settings_of(results.study, name)


def _named(results: Sequence[Results], names: Sequence[str]) -> Iterator[tuple[str, Results]]:
    return zip(names or [""] * len(results), results, strict=True)


def _check_alike(first: _Part, other: _Part) -> None:
    # Trials are of the first seed, and what they choose holds for all.
    keys = (*ALIKE, "seed") if first.settings.tune else ALIKE
    for key in keys:
        _check_equal(
            key, getattr(first.settings, key), getattr(other.settings, key), (first, other)
        )


def _check_equal(what: str, a: object, b: object, parts: tuple[_Part, _Part]) -> None:
    if a != b:
        raise HubError(
            f"{what} differs: {shown(a)} and {shown(b)}",
            where=" and ".join(part.name for part in parts),
            fix="merge results of one study, with the same settings on every machine",
        )


def _tasks(parts: Sequence[_Part]) -> dict[str, TaskRecord]:
    found: dict[str, tuple[_Part, TaskRecord]] = {}
    for part in parts:
        for task in part.results.tasks:
            first, same = found.setdefault(task.name, (part, task))
            for key in ALIKE_IN_TASKS:
                a, b = getattr(same, key), getattr(task, key)
                _check_equal(f"the {key} of task {task.name}", a, b, (first, part))
    return {name: task for name, (_, task) in found.items()}


def _settings(parts: Sequence[_Part]) -> Settings:
    """Return the settings of the study that has all of it."""
    contenders: dict[str, tuple[_Part, Contender]] = {}
    for part in parts:
        for one in part.settings.contenders:
            first, same = contenders.setdefault(one.label, (part, one))
            _check_equal(f"contender {one.label}", asdict(same), asdict(one), (first, part))
    all_settings = [part.settings for part in parts]
    seed = min(one.seed for one in all_settings)
    return replace(
        all_settings[0],
        contenders=tuple(one for _, one in contenders.values()),
        tasks=tuple(dict.fromkeys(task for one in all_settings for task in one.tasks)),
        seed=seed,
        seeds=max(one.seed + one.seeds for one in all_settings) - seed,
    )


def _versions(results: Sequence[Results]) -> dict[str, str]:
    """Return the versions; one that differs is followed by the machines that had it."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in results:
        for package, version in one.versions.items():
            found.setdefault(package, {}).setdefault(version, []).extend(one.machines)
    return {package: _version(machines) for package, machines in found.items()}


def _version(machines: Mapping[str, Sequence[str]]) -> str:
    if len(machines) == 1:
        return next(iter(machines))
    return "; ".join(
        f"{version} on {' and '.join(dict.fromkeys(where))}" for version, where in machines.items()
    )


def _outcomes(
    results: Sequence[Results], tasks: list[str], contenders: list[str]
) -> tuple[Outcome, ...]:
    same: dict[str, list[Outcome]] = {}
    for one in results:
        for outcome in one.outcomes:
            same.setdefault(digest(asdict(outcome.run)), []).append(outcome)

    def place(outcome: Outcome) -> tuple[Any, ...]:
        run: Run = outcome.run
        final = run.purpose is Purpose.FINAL
        task, contender = tasks.index(run.task), contenders.index(run.contender)
        return (task, contender, final, run.trial or 0, run.seed)

    return tuple(sorted(map(_one_of, same.values()), key=place))


def _one_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the first that ended, with a warning of each that ended differently."""
    first = next((one for one in outcomes if one.status in ENDED), outcomes[0])
    others = [one for one in outcomes if one.status in ENDED and _end(one) != _end(first)]
    warnings = (f"on {one.device or 'another machine'} it {_end(one)}" for one in others)
    return replace(first, warnings=tuple(dict.fromkeys((*first.warnings, *warnings))))


def _end(outcome: Outcome) -> str:
    if outcome.status is Status.DIVERGED:
        return f"diverged: {outcome.error}"
    return f"ended at a loss of {outcome.loss!r}"
