"""Find out by running what a spec has to declare: groups' arguments, contrasts, traits."""

import logging
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
from behaves_classes import JUDGES
from behaves_hooks import registry_of
from behaves_signature import add_bounds

from hub.backend import load_object
from hub.errors import HubError
from hub.names.layerwise_spec import LAYERWISE_SUFFIX
from hub.spec import Trait
from hub.testing import CHECKS, Subject, run
from hub.testing.comparing import weights
from hub.testing.contrasting import contrasts
from hub.testing.promises import IN_BACKWARD, IN_PROCESSES
from hub.testing.subject import differing, train

Row = dict[str, Any]
PRECISIONS = ("fp32", "bf16")
_COLOR = r"\x1b\[\d*m"
RATES = (1e-2, None, 1e-3, 1e-1, 1.0, 1e-4)
"""The learning rates tried, in this order; None is the class's default."""
NO_EFFECT = "changes no update in six steps of the kit, alone or beside one other argument"
LOW_MEMORY = tuple(check.name for check in CHECKS.values() if check.promise == "P14")
INSIDE = (*sorted(IN_BACKWARD), "follows_lr", "resume", "clips", "trains", *LOW_MEMORY)
"""The checks of layerwise forms, which otherwise do what the eager forms do."""
ALIKE = ("foreach", "fused", "capturable", "differentiable")
"""Arguments that select an implementation."""


def failure(row: Row, check: str, precision: str = "fp32", suffix: str = "") -> str:
    """Return the first line of why a check fails; "" where it passes."""
    try:
        run(check, Subject(row["name"] + suffix, precision, registry=registry_of(row)))
    except AssertionError as error:
        return _of_process(str(error)) or _first(error) or "AssertionError"
    except Exception as error:
        return f"raises {type(error).__name__}: {_first(error)}"
    return ""


def repeats(row: Row) -> bool:
    """Whether two runs of the same steps give the same weights, as the checks take for granted."""
    runs = [Subject(row["name"], registry=registry_of(row)).start() for _ in range(2)]
    for model, optimizer in runs:
        train(model, optimizer, 6)
    return not differing(*(weights(model) for model, _ in runs))


def _first(error: BaseException) -> str:
    line = next(iter(str(error).splitlines()), "")
    return re.sub(_COLOR, "", line)


def _of_process(text: str) -> str:
    """Return what was raised in a fresh process, if that is why a check failed."""
    found = re.findall(r"^[\w.]+(?:Error|Exception)\b.*", text, re.MULTILINE)
    return f"raises {re.sub(_COLOR, '', found[-1])}" if found else ""


def fails(row: Row, check: str, suffix: str = "") -> str:
    """Return why a check fails in the first precision where it does."""
    found = (failure(row, check, precision, suffix) for precision in PRECISIONS)
    return next(filter(None, found), "")


def choose_rate(row: Row) -> None:
    """Set the learning rate at which it trains, if the arguments have one."""
    if "lr" not in row["arguments"]:
        return
    default = row["arguments"]["lr"].get("default")
    for rate in RATES:
        row["example_arguments"]["lr"] = default if rate is None else rate
        if rate is None and default is None:
            continue
        if not fails(row, "trains") and not fails(row, "covers"):
            return
    row["example_arguments"]["lr"] = 1e-2 if default is None else default


def group_keys(row: Row) -> tuple[set[str], set[str]]:
    """Return the keys of a group, and those that steps change."""
    model, optimizer = Subject(row["name"], registry=registry_of(row)).start()
    before = _plain(optimizer.param_groups[0])
    train(model, optimizer, 3)
    after = _plain(optimizer.param_groups[0])
    return set(before), {key for key in after if after[key] != before.get(key)}


def _plain(group: Row) -> Row:
    return {key: repr(value) for key, value in group.items() if key not in ("params", "hub")}


def sort_arguments(row: Row, keys: set[str]) -> None:
    """Find, for each argument, whether it acts group by group, at all, and what shows it."""
    others = {name: NO_EFFECT for name in row["arguments"] if name not in ("lr", "weight_decay")}
    row["without_effect"] = dict(others)
    for name in list(others):
        found = _found_for(row, name, may_be_own=name in keys)
        if found is None:
            others[name] = "selects an implementation" if name in ALIKE else NO_EFFECT
            continue
        own, chosen = found
        others.pop(name)
        row["per_group"] += [name] if own else []
        row["contrasts"] |= {name: chosen} if chosen else {}
    row["without_effect"] = others


def _found_for(row: Row, name: str, *, may_be_own: bool) -> tuple[bool, list[Row]] | None:
    """Return whether an argument is a group's, and its contrasts; None: it has no effect."""
    trial = deepcopy(row) | {"without_effect": {k: "-" for k in row["arguments"] if k != name}}
    for chosen in _contrasts(trial, name):
        trial["contrasts"] = {name: chosen} if chosen else {}
        trial["per_group"] = row["per_group"]
        if failure(trial, "hyperparameters") or failure(trial, "hyperparameters", "bf16"):
            continue
        trial["per_group"] = [*row["per_group"], name]
        return may_be_own and not fails(trial, "hyperparameters"), chosen
    return None


def _contrasts(row: Row, name: str) -> Iterator[list[Row]]:
    """Yield contrasts: none first, as the kit's own do for most, then beside another argument."""
    yield []
    spec = Subject(row["name"], registry=registry_of(row)).spec
    own = [part[:1] for part in contrasts(spec, name)]
    for other in row["arguments"]:
        if other in (name, "lr", "weight_decay", *ALIKE):
            continue
        for changed in (c.other[other] for part in contrasts(spec, other) for c in part[:1]):
            base = {other: changed}
            for chosen in zip(*own, strict=False):
                yield [{"base": base, "other": base | {name: c.other[name]}} for c in chosen]


def prepare(row: Row) -> None:
    """Add what a spec has to declare for a class to be judged."""
    choose_rate(row)
    keys, counters = group_keys(row)
    row["step_counters"] = sorted(counters)
    row["per_group"] = [
        name for name in ("lr", "weight_decay") if name in keys & {*row["arguments"]}
    ]


def complete(row: Row) -> None:
    """Add what a spec has to declare about its arguments, for the class to be offered."""
    add_bounds(row["arguments"], builder(load_object(row["class"]), row["example_arguments"]))
    sort_arguments(row, group_keys(row)[0])


def keys(checks: Iterable[str], suffix: str = "") -> list[str]:
    """Return what a row calls each check in each precision."""
    return [f"{check}{suffix}-{precision}" for precision in PRECISIONS for check in checks]


def outcomes(row: Row, wanted: Iterable[str]) -> Row:
    """Return why the check of each key fails; "" where it passes."""
    found = {}
    for key in wanted:
        name, _, precision = key.rpartition("-")
        check = name.removesuffix(LAYERWISE_SUFFIX)
        found[key] = failure(row, check, precision, name.removeprefix(check))
    return found


def mended(row: Row) -> Row:
    """Return the row of the plugin's subclass of a class."""
    path = row["class"].replace("pytorch_optimizer:", "hub_pytorch_optimizer.factory:")
    return row | {"class": path}


def independence(row: Row) -> Row:
    """Return the traits, or why it has no layerwise form, and is not stepped in shards."""
    why = _why_not_per_parameter(row)
    if why:
        return {"why_not_layerwise": why, "why_not_sharded": why}
    return {"traits": [*row["traits"], Trait.PER_PARAMETER.value]}


def whole_kit(row: Row) -> list[str]:
    """Return the keys of all other checks than those that judge the class as it is.

    Those of several processes are left out.
    """
    out = {"refused", *IN_PROCESSES}
    eager = [check for check in CHECKS if check not in {*out, *IN_BACKWARD, *JUDGES} - {"copies"}]
    per_parameter = Trait.PER_PARAMETER.value in row["traits"]
    return keys(eager) + (keys(INSIDE, LAYERWISE_SUFFIX) if per_parameter else [])


def lacking(row: Row) -> dict[str, list[str]]:
    """Return the keys that the kit has today and a measured row lacks, by the part of the row."""
    wanted = {"outcomes": keys(JUDGES)} if row.get("outcomes") else {}
    if "whole_kit" in row:
        wanted["whole_kit"] = whole_kit(row)
    new = {part: [key for key in found if key not in row[part]] for part, found in wanted.items()}
    return {part: found for part, found in new.items() if found}


def catch_up(row: Row) -> Row:
    """Return a measured row with the outcomes of the checks that it lacks."""
    judged = {"outcomes": row, "whole_kit": mended(row)}
    new = {part: row[part] | outcomes(judged[part], found) for part, found in lacking(row).items()}
    return row | new


def _why_not_per_parameter(row: Row) -> str:
    """Return why it does not update each parameter for itself; "" where it does."""
    trial = row | {"traits": [*row["traits"], Trait.PER_PARAMETER.value]}
    for check in ("own_lr", "decay", "hyperparameters"):
        if fails(trial, check):
            return "the update of a parameter depends on other parameters"
    if fails(trial, "equals_eager", "_layerwise"):
        return "its steps with one parameter at a time are not those with all of them"
    return ""


def first_step_error(row: Row) -> str:
    """Return what building it, or its first step, raises; "" is nothing."""
    try:
        model, optimizer = Subject(row["name"], registry=registry_of(row)).start()
        train(model, optimizer, 1)
    except HubError as error:
        cause = error.__cause__
        return f"building raises {type(cause or error).__name__}: {_first(cause or error)}"
    except Exception as error:
        return f"the first step raises {type(error).__name__}: {_first(error)}"
    return ""


def builder(cls: type, given: Row) -> Any:
    """Return a function that builds the class over one parameter, with some arguments."""

    def build(**arguments: Any) -> torch.optim.Optimizer:
        logging.disable()
        return cls([torch.nn.Parameter(torch.ones(4, 4))], **given | arguments)

    return build
