"""Checks of what a plugin does in a process that has not imported it yet."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hub.testing.expect import expect


def imports_nothing(module: str) -> None:
    """Hold the import of a plugin's hooks to what looking a name up may do.

    It imports neither torch nor Transformers nor the packages that the plugin wraps, prints
    nothing, and leaves the filters of warnings, loggers, random numbers and the environment alone.

    Args:
        module: The hooks, as the entry points name them.

    Raises:
        AssertionError: It does more.
    """
    _run_fresh(_IMPORTING, module, *sorted({"torch", "transformers", *_wrapped_packages(module)}))


def _wrapped_packages(module: str) -> set[str]:
    """Return the import packages that a plugin's distribution requires, but for hub's own."""
    points = metadata.entry_points(module=module)
    expect(points, f"no installed entry point names {module}")
    required = {name for point in points if point.dist for name in _required(point.dist)}
    wrapped = required - {"hub", *_required(metadata.distribution("hub"))}
    provided = metadata.packages_distributions()
    return {
        package
        for package, owners in provided.items()
        if wrapped & set(map(canonicalize_name, owners))
    }


def _required(distribution: metadata.Distribution) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in distribution.requires or ()}


def builds_quietly(name: str, *loggers: str) -> None:
    """Hold the first build of a name in a process, which imports its backend, to leaving no trace.

    It prints nothing, draws no random numbers, and leaves the filters of warnings, loggers and the
    environment alone.

    Args:
        name: As in `hub.build`.
        loggers: Names of loggers that the backend makes, and that hub must give back as they were.

    Raises:
        AssertionError: It does more.
    """
    _run_fresh(_BUILDING, name, *loggers)


_LEFT_ALONE = """\
import logging, os, random, sys, warnings

def left_alone():
    loggers = [logging.root, *map(logging.getLogger, sorted(known))]
    return {
        "the filters of warnings": list(warnings.filters),
        "a logger": [(o.name, o.level, o.disabled, *o.handlers, *o.filters) for o in loggers],
        "the environment": dict(os.environ),
        "Python's random numbers": random.getstate(),
    }

def changed(before):
    return [key for key, value in left_alone().items() if value != before[key]]

known = set(logging.Logger.manager.loggerDict)  # later ones are the new module's own
"""

_IMPORTING = f"""{_LEFT_ALONE}
import importlib
before = left_alone()
importlib.import_module(sys.argv[1])
found = sorted(set(sys.argv[2:]) & set(sys.modules))
if found or changed(before):
    sys.exit(f"importing {{sys.argv[1]}} imports {{found}} and changes {{changed(before)}}")
"""

_BUILDING = f"""{_LEFT_ALONE}
import hub, torch
torch.set_num_threads(1)
model = torch.nn.Linear(64, 64)
hub.build("adamw_torch", model)  # torch._dynamo, which this imports, leaves traces
known = {{*logging.Logger.manager.loggerDict, *sys.argv[2:]}}
low_rank = hub.Trait.LOW_RANK in hub.describe(sys.argv[1]).traits
targets = {{"target_modules": "all-linear"}} if low_rank else {{}}
before, drawn = left_alone(), torch.get_rng_state()
hub.build(sys.argv[1], model, **targets)
if not torch.equal(drawn, torch.get_rng_state()):
    sys.exit(f"building {{sys.argv[1]}} draws random numbers of torch")
if changed(before):
    sys.exit(f"building {{sys.argv[1]}} changes {{changed(before)}}")
"""


def _run_fresh(code: str, *arguments: str) -> None:
    """Run code in a fresh process, which may neither fail nor print."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    said = done.stdout + done.stderr
    expect(done.returncode == 0 and not said, said or f"exit code {done.returncode}")
