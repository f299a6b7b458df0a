"""Write the tables in `docs/problems.md`, from `docs/problems.json` and the problems themselves.

With `--check` it fails where the page says something else. `measure_problems.py` writes the JSON.
"""

import json
import sys
from collections import defaultdict

from generating import DOCS, between_marks, code, finish

from hub.compare.tasks import problems

PAGE = DOCS / "problems.md"
TABLE = DOCS / "problems.json"
Table = dict[str, dict[str, float | None]]
"""The rate that passes, by name and problem."""


def of_problems(table: Table) -> str:
    """Return a row for each problem."""
    lines = [
        f"| problem | hard is | passed with | target | passed by, of {len(table)} |",
        "|---|---|---|---|---|",
    ]
    for name in problems.NAMES:
        one = problems.find(name)
        passed = sum(rates[one.name] is not None for rates in table.values())
        lines.append(f"| `{one.name}` | {one.hard} | {one.solved} | {one.target:g} | {passed} |")
    return "\n".join(lines) + "\n"


def of_names(table: Table) -> str:
    """Return a row for all names that fail the same problems, those that fail least first."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, rates in table.items():
        alike[tuple(key for key, rate in rates.items() if rate is None)].append(name)
    lines = ["| passed | names | not passed |", "|---|---|---|"]
    for failed in sorted(alike, key=lambda failed: (len(failed), alike[failed])):
        passed = len(problems.NAMES) - len(failed)
        lines.append(f"| {passed} | {code(alike[failed])} | {code(failed) or 'none'} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page with its tables."""
    table: Table = json.loads(TABLE.read_text())
    text = between_marks(PAGE.read_text(), of_problems(table), "problems")
    return between_marks(text, of_names(table), "names")


if __name__ == "__main__":
    sys.exit(not finish({PAGE: page()}))
