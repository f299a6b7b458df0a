"""Write the tables in `docs/performance.md` from `docs/performance.json`.

`python docs/generate_performance.py --measure` measures every installed name first, in some minutes
for which the machine should be idle, and also rewrites `docs/which-optimizer.md`, which has the
step times; `--device cuda` measures a GPU. With `--check` it fails where
the page is not what it would write.
"""

import argparse
import json
import os
import subprocess
import sys
import warnings
from typing import Any

from generating import DOCS, between_marks, code, finish

import hub
from hub.bench import Report, Row, Settings, run
from hub.bench.table import cells
from hub.experiments.contender import Contender

PAGE = DOCS / "performance.md"
FIGURES = DOCS / "performance.json"
SETUPS: dict[str, dict[str, Any]] = {"large": {}, "small": {"shapes": ((512, 8, 512),)}}
"""The layers of a small Llama, and many small matrices."""
KINDS = {"cpu": "On a CPU", "cuda": "On a GPU"}
COLUMNS = {
    "cpu": ("ms", "refresh", "×fused", "moved", "reached", "peak", "first"),
    "cuda": ("ms", "host", "device", "refresh", "×fused", "moved", "reached", "peak", "first"),
}


def measure(device: str) -> dict[str, Any]:
    """Measure every installed name on a device."""
    contenders = tuple(map(Contender, hub.list_optimizers()))
    found = {}
    for key, setup in SETUPS.items():
        settings = Settings(contenders=contenders, device=device, threads=os.cpu_count(), **setup)
        found[key] = run(settings, lambda label: print(label, file=sys.stderr)).to_dict()
    return found


def tables(figures: dict[str, Any]) -> str:
    """Return a table for each kind of device that was measured."""
    return "\n".join(
        section(kind, *(Report.from_dict(figures[kind][key]) for key in SETUPS))
        for kind in KINDS
        if kind in figures
    )


def section(kind: str, large: Report, small: Report) -> str:
    """Return what was measured on one kind of device."""
    done = [row for row in large.rows if not row.error]
    ratios = {row.label: cells(row)["×fused"] for row in small.rows}
    columns = COLUMNS[kind]
    lines = [
        f"### {KINDS[kind]}",
        "",
        _explained(large, done),
        "",
        f"| | {' | '.join(columns)} | ×fused, 512 of 8×512 |",
        "|---" + "|---:" * (len(columns) + 1) + "|",
    ]
    for row in sorted(done, key=lambda row: row.ratio or 0):
        figures = [cells(row)[column] for column in columns]
        lines.append(f"| `{row.label}` | {' | '.join(figures)} | {ratios[row.label]} |")
    failed = {row.label: row.error for row in large.rows if row.error}
    lines += [f"\nNot measured: {code([name])}, {_reason(why)}" for name, why in failed.items()]
    return "\n".join(lines) + "\n"


def _explained(report: Report, done: list[Row]) -> str:
    speed = sorted(row.bandwidth or 0 for row in done)[len(done) // 2] / 1e9
    fused = sorted(row.fused_ms or 0 for row in done)[len(done) // 2]
    versions = ", ".join(
        f"{package} {number}"
        for package, number in report.versions.items()
        if not package.startswith("hub-")
    )
    return (
        f"{done[0].parameters:,} parameters in {done[0].tensors} tensors, in "
        f"{report.settings['precision']}, with default arguments, the fastest first; "
        f"{report.device}, {speed:.0f} GB/s, torch's fused AdamW: {fused:.1f} ms; {report.date}. "
        "The last column is of 512 matrices of 8×512 numbers, as LoRA has them. "
        f"Versions: {versions}."
    )


def _reason(error: str) -> str:
    return error.splitlines()[0]


def main() -> int:
    """Measure if asked to, and write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", hub.HubWarning)
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if asked.measure:
        figures[asked.device.partition(":")[0]] = measure(asked.device)
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
        # That page has the step times too.
        subprocess.run([sys.executable, DOCS / "generate_which_optimizer.py"], check=True)  # noqa: S603
    return int(not finish({PAGE: between_marks(PAGE.read_text(), tables(figures))}))


if __name__ == "__main__":
    sys.exit(main())
