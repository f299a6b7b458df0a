"""Write `docs/gallery.md` from the studies in `docs/gallery/`.

`python docs/generate_gallery.py` writes the page, and the pictures of each study. With
`--add FOLDER NAME` it first stores the results in a folder of `hub compare --out`, as
`docs/gallery/DATE-NAME/results.json`. With `--check` it fails where the page is not what it would
write.
"""

import argparse
import datetime as dt
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from generating import DOCS, code, finish

from hub.compare import formatting, study_file
from hub.compare.claims import claims
from hub.compare.report.pictures import Pictures
from hub.compare.report.rows import Row, columns, rows
from hub.compare.result import Outcome, Point, Purpose, Results, TaskRecord, to_json
from hub.compare.results_file import NAME, load

PAGE = DOCS / "gallery.md"
FOLDER = DOCS / "gallery"
ENTRY = re.compile(r"(\d{4}-\d\d-\d\d)-([a-z0-9-]+)")
POINTS = 60
"""How many steps a stored curve has at most."""
SHOWN = ("-held-out-loss", "-learning-rates")
"""How the files of the pictures on the page end."""
FIGURES = ("held-out loss", "steps to target", "state", "peak memory")
"""The columns of the page. Times are left out: other work on the machine is in them."""
INTRODUCTION = """\
# Gallery

<!-- Written by docs/generate_gallery.py: change that, or the stored results. -->

Studies of `hub compare`, each with its numbers, what follows from them, and the file that repeats
it. They are small, for a laptop: which optimizer is better on your model, only a study of your
model tells.

[Add yours](#add-a-study), or join it with one that is here: `hub compare merge` does, where the
task's fingerprint and the settings are the same.
"""
ADD = """\
## Add a study

```sh
hub compare study.yaml --out results
python docs/generate_gallery.py --add results NAME
```

The second command stores the results in `docs/gallery/`, without the training curves of trials and
with at most {points} points of each other curve, and writes this page. Held-out losses, and so all
that is said here, stay as they are.
"""


def thin(results: Results) -> Results:
    """Return results that are small enough to keep: few points of curves, none of trials."""
    return replace(results, outcomes=tuple(map(_thin, results.outcomes)))


def _thin(outcome: Outcome) -> Outcome:
    """Keep the ends of a curve, also where it stopped being finite, and points between."""
    last = len(outcome.curve) - 1
    if outcome.run.purpose is Purpose.TUNING:
        kept = {last - 1, last} if outcome.loss is None else set()
    elif last < POINTS:
        kept = set(range(last + 1))
    else:
        kept = {round(n * last / (POINTS - 2)) for n in range(POINTS - 1)} | {last - 1}
    points = (outcome.curve[index] for index in sorted(kept) if 0 <= index <= last)
    return replace(outcome, curve=tuple(map(_rounded, points)))


def _rounded(point: Point) -> Point:
    return Point(point.step, float(f"{point.loss:.5g}"), float(f"{point.seconds:.3g}"))


def store(results: Results, name: str) -> None:
    """Write thinned results to the gallery, a training a line."""
    folder = FOLDER / f"{dt.datetime.now(dt.UTC):%Y-%m-%d}-{name}"
    if not ENTRY.fullmatch(folder.name):
        sys.exit(f"{name}: a name of the gallery has letters a to z, digits and hyphens")
    plain = json.loads(to_json(thin(results)))
    outcomes = ",\n".join(json.dumps(one, separators=(",", ":")) for one in plain.pop("outcomes"))
    head = json.dumps(plain, indent=1).removesuffix("\n}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(f'{head},\n "outcomes": [\n{outcomes}\n]}}\n')


def entries() -> list[Path]:
    """Return the folders of the gallery, the newest first."""
    return sorted((path.parent for path in FOLDER.glob(f"*/{NAME}")), reverse=True)


def page() -> str:
    """Return the text of the page."""
    sections = [section(path.name, load(path)) for path in entries()]
    return "\n".join([INTRODUCTION, *sections, ADD.format(points=POINTS)])


def section(entry: str, results: Results) -> str:
    """Return what the page says of one study."""
    date, name = entry[:10], entry[11:].replace("-", " ")
    lines = [
        f"## {name.capitalize()}, {date}",
        "",
        _setting(results),
        "",
        *(line for task in results.tasks for line in of_task(entry, results, task)),
        "<details><summary>The study as a file</summary>",
        "",
        "```yaml",
        study_file.text(results.study).strip(),
        "```",
        "",
        "</details>",
        "",
    ]
    return "\n".join(lines)


def _setting(results: Results) -> str:
    trials = results.study.get("tune")
    tuned = f", each tuned by {trials} trials" if trials else ""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return f"{code(results.contenders)}{tuned}. On {'; '.join(results.machines)}, with {versions}."


def of_task(entry: str, results: Results, task: TaskRecord) -> Iterator[str]:
    """Yield the lines on one task: table, claims, pictures."""
    shown = rows(results, task)
    kept = [one for one in columns(shown) if one.heading in FIGURES]
    chosen = any(one.run.arguments for row in shown for one in row.outcomes)
    heads = ["seeds", *(one.heading for one in kept), *(["chosen"] if chosen else [])]
    yield f"**{task.name}**: {task.summary}. Held-out loss in {task.unit} after {task.steps} steps."
    yield ""
    yield f"| | {' | '.join(heads)} |"
    yield "|---" + "|---:" * (len(kept) + 1) + "|---" * chosen + "|"
    for row in shown:
        cells = [_seeds(row), *(one.text(row) for one in kept), *([_chosen(row)] if chosen else [])]
        yield f"| `{row.contender}` | {' | '.join(cells)} |"
    yield ""
    yield from (f"- {claim.sentence()}" for claim in claims(results, task))
    yield ""
    for one in _pictures(results, task):
        yield f"![{one.title}](gallery/{entry}/{one.name}.png)"
        yield ""
        yield f"*{one.caption}*"
        yield ""


def _seeds(row: Row) -> str:
    done = row.loss.count if row.loss else 0
    return f"{done}" if not row.ended else f"{done} of {len(row.outcomes)}"


def _chosen(row: Row) -> str:
    found = {formatting.settings(one.run.arguments) for one in row.outcomes}
    return "; ".join(text or "its defaults" for text in sorted(found))


def _pictures(results: Results, task: TaskRecord) -> list[Any]:
    drawn = Pictures.of(replace(results, tasks=(task,))).by_task[task.name]
    return [one for end in SHOWN for one in drawn if one.name.endswith(end)]


def draw() -> None:
    """Write the pictures that the page shows."""
    for path in entries():
        results = load(path)
        for task in results.tasks:
            for one in _pictures(results, task):
                (path / f"{one.name}.png").write_bytes(one.png())


def main() -> int:
    """Store a study if asked to, and write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", nargs=2, metavar=("FOLDER", "NAME"))
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.add:
        store(load(asked.add[0]), asked.add[1])
    done = finish({PAGE: page()})
    if not asked.check:
        draw()
    return int(not done)


if __name__ == "__main__":
    sys.exit(main())
