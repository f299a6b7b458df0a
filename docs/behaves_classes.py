"""The classes that are measured, the checks that judge a class, and why some are not tried."""

import inspect
from importlib import import_module
from importlib.metadata import packages_distributions
from typing import Any

from behaves_signature import arguments_of
from torch.optim import Optimizer

import hub
from hub.backend import load_object
from hub.spec import Trait
from hub.testing import Subject

PACKAGES = {"pytorch_optimizer": "pytorch_optimizer", "torch.optim": "torch"}
"""The modules whose classes are all measured, and their distributions."""
JUDGES = (
    "follows_lr",
    "own_lr",
    "decay",
    "names",
    "covers",
    "late_group",
    "resume",
    "plain_state",
    "distributed_state",
    "shares_nothing",
    "copies",
    "accumulates",
    "leaves_gradients",
    "closures",
    "trains",
    "no_trace",
)
"""The checks that judge a class; the others are about what hub adds."""
PREFIX = "po_"
EXAMPLES: dict[str, dict[str, Any]] = {
    "pytorch_optimizer:AdaShift": {"keep_num": 1},
    "pytorch_optimizer:BSAM": {"num_data": 1000},
    "pytorch_optimizer:Ranger21": {"num_iterations": 1000},
}
"""Values for arguments without a default, and for one that puts the first update off for longer
than the kit runs."""


def package_of(path: str) -> str:
    """Return the distribution of a class."""
    module = path.partition(":")[0]
    if module in PACKAGES:
        return PACKAGES[module]
    owners = packages_distributions()[module.partition(".")[0]]
    return str(owners[0])


def row_of(path: str) -> dict[str, Any]:
    """Return a row about a class, of which only the signature is known."""
    module, _, name = path.partition(":")
    cls: Any = load_object(path)
    modes = ["train_eval_modes"] if hasattr(cls, "eval") and hasattr(cls, "train") else []
    free = ["schedule_free"] if name.startswith("ScheduleFree") else []
    return {
        "name": (PREFIX if module == "pytorch_optimizer" else "") + name.lower(),
        "class": path,
        "summary": f"{name} of {module}",
        "arguments": arguments_of(cls),
        "traits": modes + free,
        "precisions": ["fp32", "bf16", "bf16-mixed", "fp16-mixed"],
        "per_group": [],
        "example_arguments": EXAMPLES.get(path, {}),
        "contrasts": {},
        "without_effect": {},
        "step_counters": [],
        "why_not_layerwise": "",
        "why_not_sharded": "",
        "package": package_of(path),
        "license": "",
        "paper": "",
        "homepage": "",
        "notes": [],
        "outcomes": {},
    }


def reason_not_tried(path: str) -> str:
    """Return why a class is not called with parameters and plain values; "" where it is."""
    first, *others = inspect.signature(load_object(path)).parameters.values()
    if first.name == "model":
        return "takes the model instead of parameters"
    if first.name == "optimizer" or any(p.name == "base_optimizer" for p in others):
        return "wraps another optimizer"
    given = {*EXAMPLES.get(path, {}), *arguments_of(load_object(path))}
    empty = inspect.Parameter.empty
    needed = [p.name for p in others if p.default is empty and p.kind is not p.VAR_KEYWORD]
    missing = [name for name in needed if name not in given]
    return f"needs `{missing[0]}`" if missing else ""


def row_like(path: str, name: str) -> dict[str, Any]:
    """Return a row about the class that a name of hub's own wraps."""
    spec = hub.describe(name)
    taken = inspect.signature(load_object(path)).parameters
    of_hub = [k for k in spec.arguments.model_fields if k not in taken or k in spec.low_rank]
    return {
        "name": name,
        "like": name,
        "class": path,
        "of_hub": of_hub,
        "package": package_of(path),
        "outcomes": {},
    }


def wrapped() -> dict[str, str]:
    """Return the upstream class that each name of hub's plugins wraps."""
    found = {}
    for name in hub.list_optimizers():
        spec = hub.describe(name)
        if spec.package in PACKAGES.values():
            continue
        _, optimizer = Subject(name).start()
        homes = {spec.package.replace("-", "_"), *_modules(spec.package)}
        homes.discard("hub")
        cls = next(
            (c for c in type(optimizer).__mro__ if c.__module__.partition(".")[0] in homes), None
        )
        if cls is None or Trait.STEPS_IN_BACKWARD in spec.traits:
            continue
        found.setdefault(f"{cls.__module__}:{cls.__qualname__}", name)
    return {f"{path} as {name}": name for path, name in found.items()}


def _modules(package: str) -> list[str]:
    return [m for m, owners in packages_distributions().items() if package in owners]


def every_class() -> list[str]:
    """Return every class to try, as "module:Class", or "module:Class as NAME" of hub's."""
    return [f"{module}:{name}" for module in PACKAGES for name in classes(module)] + list(wrapped())


def classes(module: str) -> list[str]:
    """Return the optimizers that a module exports and that are its own."""
    return [
        name
        for name, cls in sorted(vars(import_module(module)).items())
        if inspect.isclass(cls)
        and issubclass(cls, Optimizer)
        and not inspect.isabstract(cls)
        and cls is not Optimizer
        and cls.__module__.startswith(module)
    ]
