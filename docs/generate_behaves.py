"""Write the tables of `docs/behaves.md`, from what `measure_behaves.py` measured.

With `--check` it fails where the page says something else.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from typing import Any

from generating import DOCS, between_marks, finish

PAGE = DOCS / "behaves.md"
TABLE = DOCS / "behaves.json"
PREFIX = "po_"
LONGEST = 110
PLUGIN = DOCS.parent / "contrib/hub-pytorch-optimizer/src/hub_pytorch_optimizer"
OFFERED = {row["name"] for row in json.loads((PLUGIN / "table.json").read_text())}
PRECISIONS = ("fp32", "bf16")
Row = dict[str, Any]
Table = dict[str, Row]

TITLES = {
    "pytorch_optimizer": "pytorch_optimizer",
    "torch": "torch.optim",
}


def outcome(row: Row) -> str:
    """Return whether a class passes, how much it fails, or that it is not judged or not tried."""
    if row["not_tried"]:
        return "not tried"
    if row["error"] or not judged_in(row):
        return "not judged"
    failed = set(failures(row))
    return "fails more" if failed - {"copies"} else "fails only copies" if failed else "passes"


def judged_in(row: Row) -> list[str]:
    """Return the precisions in which it trains: what else it does in the others says little."""
    return [p for p in PRECISIONS if not row["outcomes"][f"trains-{p}"]]


def failures(row: Row) -> dict[str, str]:
    """Return each check that fails, how, and in which precision if not in both."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for key, message in row.get("outcomes", {}).items():
        check, _, precision = key.rpartition("-")
        if message and precision in judged_in(row):
            found[check][precision] = message
    return {
        check: said["fp32"] if "fp32" in said else f"in bf16: {said['bf16']}"
        for check, said in found.items()
    }


def cell(row: Row) -> str:
    """Return what the table says about a class; checks that fail alike are one line."""
    if outcome(row) == "not tried":
        return f"not tried: {row['not_tried']}"
    if outcome(row) == "not judged":
        return f"not judged: {shown(row['error'] or row['outcomes']['trains-fp32'])}"
    lines: dict[str, list[str]] = defaultdict(list)
    for check, message in failures(row).items():
        lines[shown(message)].append(f"`{check}`")
    texts = [f"{', '.join(names)}: {message}" for message, names in lines.items()]
    only = judged_in(row) != ["fp32", "bf16"]
    texts += [f"judged in {judged_in(row)[0]} only, the other does not train"] if only else []
    return "<br>".join(texts) or "passes"


def shown(message: str) -> str:
    """Return a message on one line, with the first of the parameters that it names."""
    text = re.sub(r"\[('[^']*')(?:, '[^']*')+,?(?: \.\.\.)?\]", r"\1 and others", message)
    text = re.sub(r"\['([^']*)'\]", r"'\1'", text)
    text = re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4g}", text)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
    return text.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")


def summary(table: Table) -> str:
    """Return the numbers of each package."""
    kinds = ("passes", "fails only copies", "fails more", "not judged", "not tried")
    lines = [f"| package | version | {' | '.join(kinds)} |", "|---" * 7 + "|"]
    for package, rows in by_package(table).items():
        counted = Counter(map(outcome, rows.values()))
        version = next(iter(rows.values()))["version"]
        numbers = " | ".join(str(counted[kind]) for kind in kinds)
        lines.append(f"| {package} | {version} | {numbers} |")
    return "\n".join(lines) + "\n"


def by_package(table: Table) -> dict[str, Table]:
    """Return the rows of each package, those with signatures first."""
    found: dict[str, Table] = {TITLES["pytorch_optimizer"]: {}, "torch": {}}
    for path, row in sorted(table.items(), key=lambda item: item[0].lower()):
        found.setdefault(row.get("package", path.partition(":")[0]), {})[path] = row
    return found


def checks(table: Table) -> str:
    """Return how many classes fail each check."""
    counted: Counter[str] = Counter()
    for row in table.values():
        counted.update(failures(row).keys())
    lines = ["| check | classes that fail it |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{k}` | {n} |" for k, n in counted.most_common())]) + "\n"


def tables(table: Table) -> str:
    """Return a table for each package."""
    parts = []
    for package, rows in by_package(table).items():
        parts += [f"### {package}", ""]
        offers = package == TITLES["pytorch_optimizer"]
        head = "| class | | offered as |" if offers else "| class | |"
        parts += [head, "|---|---|---|" if offers else "|---|---|"]
        for path, row in rows.items():
            last = f" {offer(row)} |" if offers else ""
            parts.append(f"| `{path.partition(' as ')[0].partition(':')[2]}` | {cell(row)} |{last}")
        parts.append("")
    return "\n".join(parts)


def offer(row: Row) -> str:
    """Return the name under which hub-pytorch-optimizer offers a class."""
    return f"`{row['name']}`" if row.get("name") in OFFERED else ""


def page() -> str:
    """Return the page with what is generated."""
    table = json.loads(TABLE.read_text())
    text = between_marks(PAGE.read_text(), summary(table), "summary")
    text = between_marks(text, checks(table), "checks")
    return between_marks(text, tables(table), "tables")


if __name__ == "__main__":
    sys.exit(not finish({PAGE: page()}))
