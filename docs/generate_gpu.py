"""Write `docs/gpu.md`, and the index's link to it, from `docs/gpu.json`.

`python docs/measure_gpu.py` writes that on a machine with a GPU; without it there is no page. With
`--check` it fails where one of them is not what it would write.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generate_performance import SETUPS, section
from generating import DOCS, between_marks, code, finish

from hub.bench import Report
from hub.testing.subject import DTYPES

PAGE = DOCS / "gpu.md"
INDEX = DOCS / "index.md"
TABLE = DOCS / "gpu.json"
LINK = (
    "- [On a GPU](gpu.md): the conformance kit and the time of a step of every name, on one GPU\n"
)
INTRODUCTION = """\
# On a GPU

<!-- Written by docs/generate_gpu.py: change that, or measure anew. -->

"""
KIT = """
## The conformance kit

How many checks each name keeps, in its eager and its layerwise form. Where it says "refused", the
name does not declare the precision, and hub refuses to build it.

"""
Table = dict[str, Any]


def page(table: Table) -> str:
    """Return the text of the page."""
    return INTRODUCTION + machine(table) + KIT + "\n".join(kit(table["kit"])) + bench(table)


def machine(table: Table) -> str:
    """Return where and with what everything was measured."""
    driver = f", driver {table['driver']}" if table["driver"] else ""
    cuda = f", CUDA {table['cuda']}" if table["cuda"] else ""
    versions = ", ".join(f"{package} {version}" for package, version in table["versions"].items())
    return f"{table['device']}{driver}{cuda}, {table['date']}. Versions: {versions}.\n"


def kit(found: dict[str, dict[str, Table]]) -> Iterator[str]:
    """Yield the lines of the kit's table, and of what is not kept."""
    yield "| | " + " | ".join(DTYPES) + " |"
    yield "|---" * (len(DTYPES) + 1) + "|"
    for name, cells in found.items():
        yield f"| `{name}` | {' | '.join(shown(cells.get(key)) for key in DTYPES)} |"
    yield ""
    for kind, title in (("broken", "Broken"), ("known", "Known failures, which a spec declares")):
        lines = [*_others(found, kind)]
        if lines:
            yield from (f"{title}:", "", *lines, "")


def shown(cell: Table | None) -> str:
    """Return what the table says of one name in one precision."""
    if cell is None:
        return "–"
    if set(cell["others"].values()) == {"refused"}:
        return "refused"
    broken = sum(text.startswith("broken") for text in cell["others"].values())
    return f"**{cell['kept']}, {broken} broken**" if broken else f"{cell['kept']}"


def _others(found: dict[str, dict[str, Table]], kind: str) -> Iterator[str]:
    for name, cells in found.items():
        for precision, cell in cells.items():
            for check, text in cell["others"].items():
                if text.startswith(f"{kind}: "):
                    reason = text.removeprefix(f"{kind}: ").rstrip(".")
                    yield f"- {code([name])}, {check}, {precision}: {reason}."


def bench(table: Table) -> str:
    """Return the table of `hub bench`, if all names were measured."""
    if not table["bench"]:
        return ""
    reports = (Report.from_dict(table["bench"][key]) for key in SETUPS)
    explained = "[What the columns mean](performance.md).\n\n"
    return "\n## A step\n\n" + explained + section("cuda", *reports)


def texts(source: Path = TABLE) -> dict[Path, str]:
    """Return what the files should say."""
    index = INDEX.read_text()
    if not source.exists():
        return {INDEX: between_marks(index, "", "gpu")}
    return {
        PAGE: page(json.loads(source.read_text())),
        INDEX: between_marks(index, LINK, "gpu"),
    }


if __name__ == "__main__":
    sys.exit(not finish(texts()))
