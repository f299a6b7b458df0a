"""Write `docs/gpu.json`: what the conformance kit and `hub bench` say on this machine's GPU.

`tox run -e gpu` runs it for every installed name, and then `generate_gpu.py`, which writes the
page. With names on its command line it runs the kit for these only. `--device cpu --table FILE`
tries it without a GPU.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from generate_performance import measure
from generating import DOCS, step_uncompiled

import hub
from hub.experiments.devices import check_device, device_in_words
from hub.experiments.versions import collect
from hub.testing import Case, Subject, cases, run

TABLE = DOCS / "gpu.json"
KEPT, REFUSED = "kept", "refused"
Cell = dict[str, Any]


def environment(device: str, names: list[str]) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "device": device_in_words(torch.device(device)),
        "driver": driver() if device.startswith("cuda") else None,
        "cuda": torch.version.cuda,
        "versions": collect(tuple(names)),
    }


def driver() -> str:
    """Return the version of the GPU's driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]  # noqa: S603


def outcome(case: Case) -> str:
    """Return what becomes of a check."""
    try:
        run(case.check, case.subject)
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        return f"known: {case.known}" if case.known else f"broken: {first}"
    if case.known:
        return "broken: passes, although its spec declares a failure"
    return REFUSED if case.check == REFUSED else KEPT


def kit(name: str, device: str) -> dict[str, dict[str, Cell]]:
    """Return by form and precision how many checks are kept, and what becomes of the others."""
    found: dict[str, dict[str, Cell]] = {}
    for case in cases([name], device):
        if not isinstance(case.subject, Subject):
            continue
        cell = found.setdefault(case.subject.name, {}).setdefault(
            case.subject.precision, {KEPT: 0, "others": {}}
        )
        result = outcome(case)
        if result == KEPT:
            cell[KEPT] += 1
        else:
            cell["others"][case.check] = result
    return found


def apart(name: str, device: str) -> dict[str, dict[str, Cell]]:
    """Run the kit in a fresh process: after an illegal memory access, a GPU does nothing more."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(kit, name, device).result()
        except BrokenProcessPool:
            crash = {KEPT: 0, "others": {"all": "broken: its process crashed"}}
            return {name: {"fp32": crash}}


def main() -> int:
    """Measure, and write after each name; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--table", type=Path, default=TABLE)
    asked = parser.parse_args()
    try:
        check_device(asked.device)
    except hub.HubError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    names = asked.names or hub.list_optimizers()
    table = environment(asked.device, names)
    table["bench"] = {} if asked.names else measure(asked.device)
    table["kit"] = {}
    step_uncompiled()  # in the processes that start now
    for name in names:
        print(name, file=sys.stderr)
        table["kit"] |= apart(name, asked.device)
        asked.table.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
