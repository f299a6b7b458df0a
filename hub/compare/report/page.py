"""The report as one HTML page that needs no other file and no script."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from hub.arguments.values import to_json
from hub.compare import formatting, study_file
from hub.compare.claims import Claim, Lead, Trouble, claims
from hub.compare.report import contenders, markup, tables
from hub.compare.report.looks import looks, variables
from hub.compare.report.markup import folded, pairs, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hub.compare.report.looks import Look
    from hub.compare.report.picture import Picture
    from hub.compare.report.pictures import Pictures
    from hub.compare.result import Results, TaskRecord

OPEN_TASKS = 3
"""Up to so many tasks, their pictures are not folded."""

PROTOCOL = """<p>Every loss is that on held-out data at the end of a training of full length. All
contenders start a seed with the same weights and see the same batches. Intervals are 95 % by
Student's t; p values are of paired t-tests over the seeds, corrected by Holm for all pairs of a
task. <code>results.json</code> and <code>trainings.csv</code> beside this page have all numbers.
</p>"""


def html(results: Results, drawn: Pictures) -> str:
    """Return the page.

    Raises:
        HubError: SciPy or PyYAML is missing.
    """
    style = files("hub.compare.report").joinpath("style.css").read_text(encoding="utf-8")
    look = looks(results.contenders)
    title = "Optimizers compared"
    tasks = [_task(results, task, drawn.by_task[task.name], look) for task in results.tasks]
    body = [
        f"<h1>{title}</h1>",
        f'<p class="quiet">{text(_size(results))}</p>',
        '<section>\n<h2 class="first">What the numbers say</h2>',
        *(_claims(results, task) for task in results.tasks),
        _pictures(drawn.together, look),
        "</section>",
        *tasks,
        "<section>\n<h2>Contenders</h2>",
        *(contenders.section(results, one, look[one]) for one in results.contenders),
        "</section>",
        _how(results),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ {variables()} }}
{style}</style>
</head>
<body>
{chr(10).join(filter(None, body))}
</body>
</html>
"""


def _size(results: Results) -> str:
    seeds = {one.run.seed for one in results.outcomes if one.run.trial is None}
    trials = {one.run.trial for one in results.outcomes if one.run.trial is not None}
    parts = [
        _count(len(results.contenders), "contender"),
        _count(len(results.tasks), "task"),
        _count(len(seeds), "seed"),
    ]
    if trials:
        parts.append(f"each tuned with {_count(len(trials), 'trial')}")
    if results.interrupted:
        parts.append("interrupted: not all trainings are done")
    return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _claims(results: Results, task: TaskRecord) -> str:
    """Return what can be said of a task, under its name if there are several."""
    heading = f"<h3>{text(task.name)}</h3>\n" if len(results.tasks) > 1 else ""
    items = "\n".join(
        f'<li class="{_kind(one)}">{markup.sentence(one.sentence)}</li>'
        for one in claims(results, task)
    )
    return f'{heading}<ul class="claims">\n{items}\n</ul>' if items else ""


def _kind(claim: object) -> str:
    if isinstance(claim, Trouble):
        return "bad"
    better = (isinstance(claim, Claim) and claim.told_apart) or (
        isinstance(claim, Lead) and claim.better_than
    )
    return "better" if better else "equal"


def _task(
    results: Results, task: TaskRecord, drawn: Sequence[Picture], look: dict[str, Look]
) -> str:
    pictures = _pictures(drawn, look)
    if pictures and len(results.tasks) > OPEN_TASKS:
        pictures = folded("pictures", pictures)
    facts = [task.summary, f"{formatting.number(task.steps)} steps"]
    if task.target is not None:
        facts.append(f"target {formatting.loss(task.target)} {task.unit}")
    parts = [
        f"<section>\n<h2>{text(task.name)}</h2>",
        f'<p class="quiet">{text(", ".join(filter(None, facts)))}</p>',
        tables.figures(results, task, look),
        tables.matrix(results, task, look),
        pictures,
        "</section>",
    ]
    return "\n".join(filter(None, parts))


def _pictures(drawn: Sequence[Picture], look: dict[str, Look]) -> str:
    if not drawn:
        return ""
    shown = [name for name in look if any(name in one.looks for one in drawn)]
    made = "\n".join(map(_figure, drawn))
    return f'{_legend(shown, look)}\n<div class="pictures">\n{made}\n</div>'


def _legend(shown: Iterable[str], look: dict[str, Look]) -> str:
    items = "\n".join(f"<li>{look[name].named(name)}</li>" for name in shown)
    return f'<ul class="legend">\n{items}\n</ul>'


def _figure(one: Picture) -> str:
    svg = one.svg().replace("<svg", f'<svg role="img" aria-label="{text(one.title)}"', 1)
    caption = f"<strong>{text(one.title)}</strong> {text(one.caption)}"
    return f"<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>"


def _how(results: Results) -> str:
    """Return what repeats the study."""
    trained = {one.parameters for one in results.outcomes if one.parameters}
    facts = {
        "machine" if len(results.machines) == 1 else "machines": "; ".join(results.machines),
        "versions": ", ".join(f"{name} {value}" for name, value in results.versions.items()),
        "parameters": ", ".join(f"{number:,}" for number in sorted(trained)),
        **{
            f"task {task.name}": ", ".join(
                filter(None, (task.summary, task.fingerprint and f"digest {task.fingerprint}"))
            )
            for task in results.tasks
        },
    }
    return "\n".join(
        (
            "<section>\n<h2>How it was run</h2>",
            PROTOCOL,
            pairs({key: value for key, value in facts.items() if value}),
            "<h3>The study as a file</h3>",
            f"<pre>{text(study_file.text(to_json(results.study)))}</pre>\n</section>",
        )
    )
