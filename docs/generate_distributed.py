"""Write in `docs/distributed.md` what works under which strategy, and the plan for many GPUs.

The first comes from `docs/distributed.json`, which `measure_distributed.py` writes; the second from
`paper_plan.py`. With `--check` it fails where the page says something else.
"""

import json
import sys
from collections import defaultdict

import paper_plan
from generating import DOCS, between_marks, code, finish

PAGE = DOCS / "distributed.md"
TABLE = DOCS / "distributed.json"
STRATEGIES = {
    "ddp": "DDP",
    "ddp-after": "DDP, wrapped first",
    "fsdp2": "FSDP2",
    "fsdp2-before": "FSDP2, built first",
    "hsdp": "HSDP",
    "fsdp1": "FSDP1",
}
Cell = str | dict[str, str]
Row = tuple[str, ...]


def outcome(name: str, cell: Cell) -> str:
    """Return what a cell says, of whichever name."""
    if isinstance(cell, dict):
        return "; ".join(f"{key}: {outcome(name, value)}" for key, value in cell.items())
    return cell.replace(f"{name}: ", "").replace(name, "it")


def support(table: dict[str, dict[str, Cell]]) -> str:
    """Return the table, with one row for all names that do the same, and the reasons."""
    rows: dict[Row, list[str]] = defaultdict(list)
    for name, cells in table.items():
        rows[tuple(outcome(name, cells[key]) for key in STRATEGIES)].append(name)
    texts = dict.fromkeys(text for row in rows for text in row if text != "equal")
    marks = {text: str(number) for number, text in enumerate(texts, 1)}
    lines = ["| | " + " | ".join(STRATEGIES.values()) + " |", "|---" * (len(STRATEGIES) + 1) + "|"]
    for row, names in rows.items():
        cells = [_mark(text, marks) for text in row]
        lines.append(f"| {code(names)} | {' | '.join(cells)} |")
    reasons = [f"{mark}. {text.removeprefix('refused: ')}" for text, mark in marks.items()]
    return "\n".join([*lines, "", *reasons, ""])


def _mark(text: str, marks: dict[str, str]) -> str:
    if text == "equal":
        return "="
    return f"{'refused' if text.startswith('refused: ') else '**wrong**'} ({marks[text]})"


def page() -> str:
    """Return the page with what is generated."""
    text = between_marks(PAGE.read_text(), support(json.loads(TABLE.read_text())), "support")
    for part, table in (
        ("balance", paper_plan.balances()),
        ("traffic", paper_plan.transfers()),
        ("memory", paper_plan.memories()),
    ):
        text = between_marks(text, "\n".join(table) + "\n", part)
    return text


if __name__ == "__main__":
    sys.exit(not finish({PAGE: page()}))
