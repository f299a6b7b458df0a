# ruff: noqa: INP001 - a script beside the package
"""Write the table of optimizers that the plugin offers, and their entry points.

`python generate.py` reads `docs/behaves.json` of the project, which `docs/measure_behaves.py`
writes. A class is offered if it passes every check there, but for `copies`, which `factory.py`
mends; and if the kit's other checks pass with the spec that is written here. With `--check` nothing
is written, and the exit status is 1 if anything would be.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MEASURED = HERE.parents[1] / "docs" / "behaves.json"
TABLE = HERE / "src" / "hub_pytorch_optimizer" / "table.json"
PROJECT = HERE / "pyproject.toml"
README = HERE / "README.md"
OF_SPEC = (
    "name",
    "class",
    "arguments",
    "traits",
    "precisions",
    "per_group",
    "example_arguments",
    "contrasts",
    "without_effect",
    "step_counters",
    "why_not_layerwise",
    "why_not_sharded",
)
MARKED = {"APOLLO", "AdamC", "Fira", "GaLore"}
"""Classes that do what they are for only in groups marked with `rank`, or `normalized`. In plain
groups, which is all that was measured, they are AdamW, so they are not offered."""
COMMON = {
    "package": "pytorch_optimizer",
    "license": "Apache-2.0",
    "paper": "",
    "homepage": "https://github.com/kozistr/pytorch_optimizer",
}
Row = dict[str, Any]


def is_offered(row: Row) -> bool:
    """Whether a measured class passes."""
    failed = {key.rpartition("-")[0] for key, found in row.get("outcomes", {}).items() if found}
    kit = row.get("whole_kit")
    if row.get("class", "").partition(":")[2] in MARKED:
        return False
    return bool(kit) and failed <= {"copies"} and not any(kit.values())


def offered(measured: dict[str, Row]) -> list[Row]:
    """Return the rows of the plugin's table, by name."""
    rows = [_row(row) for row in measured.values() if is_offered(row)]
    return sorted(rows, key=lambda row: str(row["name"]))


def _row(row: Row) -> Row:
    cls = row["class"].partition(":")[2]
    silent = sorted(set(row["without_effect"]) - {"foreach"})
    note = f"No effect of these arguments was seen in six steps: {', '.join(silent)}."
    return {
        **{key: row[key] for key in OF_SPEC},
        **COMMON,
        "class": f"hub_pytorch_optimizer.factory:{cls}",
        "summary": f"{cls} of pytorch_optimizer",
        "notes": [note] if silent else [],
    }


def entry_points(text: str, rows: list[Row]) -> str:
    """Return pyproject.toml with one entry point for each row."""
    lines = "".join(f'{row["name"]} = "hub_pytorch_optimizer.hooks"\n' for row in rows)
    pattern = r'(\[project\.entry-points\."hub\.optimizers"\]\n)(?:\w+ = .*\n)*'
    return re.sub(pattern, lambda found: found[1] + lines, text)


def names(text: str, rows: list[Row]) -> str:
    """Return the README with the names between its marks."""
    lines = "".join(
        f"| `{row['name']}` | `{row['class'].partition(':')[2]}` "
        f"| {'yes' if 'per_parameter' in row['traits'] else ''} |\n"
        for row in rows
    )
    table = "| name | class of pytorch_optimizer | `_layerwise` |\n|---|---|---|\n" + lines
    start, end = "<!-- generated -->\n", "<!-- end of generated -->"
    return re.sub(f"{start}.*?{end}", lambda _: start + table + end, text, flags=re.DOTALL)


def main() -> int:
    """Write all three files, or compare them."""
    rows = offered(json.loads(MEASURED.read_text()))
    texts = {
        TABLE: json.dumps(rows, indent=1) + "\n",
        PROJECT: entry_points(PROJECT.read_text(), rows),
        README: names(README.read_text(), rows),
    }
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.stderr.writelines(f"{path.name} is not what is measured\n" for path in stale)
        return 1 if stale else 0
    for path in stale:
        path.write_text(texts[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
