"""Write `docs/behaves.json`: what optimizer classes do in hub's conformance kit.

`python docs/measure_behaves.py` takes an hour. It leaves what the file has for the installed
versions; if the kit got checks since, it runs these alone. Names on its command line, such as
`pytorch_optimizer:ADOPT`, are measured again; `--all` is all of them.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from generating import DOCS, step_uncompiled

step_uncompiled()

import behaves_discover as discover
from behaves_classes import (
    JUDGES,
    PREFIX,
    every_class,
    package_of,
    reason_not_tried,
    row_like,
    row_of,
)

TABLE = DOCS / "behaves.json"
LIMIT = 600
"""Seconds for one class."""


def measure(path: str) -> dict[str, Any]:
    """Return the row of a class, with the outcome of every check that judges it.

    One of pytorch_optimizer that fails at most `copies`, which its plugin mends, runs the whole kit
    as the plugin offers it.
    """
    path, _, like = path.partition(" as ")
    row = row_like(path, like) if like else row_of(path)
    row["not_tried"] = reason_not_tried(path)
    if row["not_tried"]:
        return row
    row["error"] = discover.first_step_error(row) or _modes_error(row)
    if row["error"]:
        return row
    if not like:
        discover.prepare(row)
    if not discover.repeats(row):
        return row | {"error": "two runs of the same steps differ, so that none can be compared"}
    row["outcomes"] = discover.outcomes(row, discover.keys(JUDGES))
    if row["name"].startswith(PREFIX) and set(failed_checks(row)) <= {"copies"}:
        discover.complete(row)
        row |= discover.independence(discover.mended(row))
        row["whole_kit"] = discover.outcomes(discover.mended(row), discover.whole_kit(row))
    return row


def _modes_error(row: dict[str, Any]) -> str:
    """Return why hub's checkpoints and classes with `train()` and `eval()` do not go together."""
    if "train_eval_modes" not in row.get("traits", ()):
        return ""
    return "its load_state_dict does not take what hub saves for its train() and eval()"


def failed_checks(row: dict[str, Any]) -> list[str]:
    """Return the checks that fail, without their precisions."""
    return list(dict.fromkeys(key.rpartition("-")[0] for key in failed(row)))


def _measure_into(connection: Connection, path: str, known: dict[str, Any] | None) -> None:
    """Send the row of a class, from a process that is forked for it."""
    # The server of fresh processes is this process' sibling.
    forkserver._forkserver.ensure_running = lambda: None  # noqa: SLF001
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
    connection.send(discover.catch_up(known) if known else measure(path))


def rows(
    wanted: dict[str, dict[str, Any] | None], workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure each class in a process, which may crash or never end; yield them as they come.

    Args:
        wanted: By class, the row that only lacks some checks, or None.
        workers: Processes at a time.
    """
    preloading = multiprocessing.get_context("forkserver")
    preloading.set_forkserver_preload(["hub.testing.preloading", "behaves_hooks"])
    forkserver.ensure_running()
    context = multiprocessing.get_context("fork")
    waiting, running = list(wanted), {}
    while waiting or running:
        while waiting and len(running) < workers:
            ours, theirs = context.Pipe(duplex=False)
            path = waiting.pop(0)
            process = context.Process(target=_measure_into, args=(theirs, path, wanted[path]))
            process.start()
            theirs.close()
            running[ours] = process, path, time.monotonic()
        wait(list(running), timeout=1)
        for connection, (process, path, started) in list(running.items()):
            seconds = time.monotonic() - started
            if not connection.poll() and seconds < LIMIT:
                continue
            try:
                row = connection.recv() if connection.poll() else _lost(f"takes over {LIMIT} s")
            except EOFError:
                process.join()
                row = _lost(f"the process ends with exit code {process.exitcode}")
            process.kill()
            process.join()
            del running[connection]
            total = round(seconds) + (wanted[path] or {}).get("seconds", 0)
            yield path, row | {"seconds": total, "version": version_of(path)}


def _lost(reason: str) -> dict[str, Any]:
    return {"not_tried": "", "error": reason}


def failed(row: dict[str, Any]) -> list[str]:
    """Return the checks of a row that fail, of the class itself or as the plugin offers it."""
    parts = row.get("outcomes", {}), row.get("whole_kit", {})
    return [check for part in parts for check, found in part.items() if found]


def version_of(path: str) -> str:
    """Return the version of the distribution that a class is from."""
    return metadata.version(package_of(path.partition(" as ")[0]))


def main(names: list[str]) -> None:
    """Measure and write, after each class, so that it can be interrupted."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    wanted = dict.fromkeys(name for name in names if name != "--all") or _due(
        table, every_class(), again="--all" in names
    )
    for path, row in rows(wanted, int(os.environ.get("HUB_BEHAVES_WORKERS", "2"))):
        table[path] = row
        said = row["not_tried"] or row["error"] or failed(row)
        sys.stderr.write(f"{path}: {row['seconds']} s, {said}\n")
        TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")


def _due(
    table: dict[str, Any], paths: list[str], *, again: bool
) -> dict[str, dict[str, Any] | None]:
    """Return the classes to measure: anew, or with the rows that lack checks."""
    due: dict[str, dict[str, Any] | None] = {}
    for path in paths:
        row = table.get(path, {})
        if again or row.get("version") != version_of(path):
            due[path] = None
        elif discover.lacking(row):
            due[path] = row
    return due


if __name__ == "__main__":
    main(sys.argv[1:])
