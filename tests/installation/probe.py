"""What hub answers in the environment that runs this: JSON, on standard output.

Arguments are names to build besides all installed ones.
"""

import json
import sys
import warnings
from importlib.metadata import version

import hub


def main() -> None:
    names, schedules = hub.list_optimizers(), hub.list_schedulers()
    unknown = _error(hub.describe, "no_such_optimizer")
    cold = sorted({"torch", "pydantic"} & set(sys.modules))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", hub.HubWarning)
        errors = {name: _error(train_with, name) for name in [*names, *sys.argv[1:]]}
    answers = {
        "version": version("hub"),
        "optimizers": names,
        "schedulers": schedules,
        "unknown": unknown,
        "imported_by_lookups": cold,
        "built": sorted(name for name, error in errors.items() if error is None),
        "errors": {name: error for name, error in errors.items() if error},
        "warnings": [str(w.message) for w in caught if issubclass(w.category, hub.HubWarning)],
    }
    json.dump(answers, sys.stdout)


def _error(call, name):
    """Return what hub says is wrong, or None; what hub did not foresee goes through."""
    try:
        call(name)
    except hub.HubError as error:
        return {
            "type": type(error).__name__,
            "message": str(error),
            "fix": error.fix,
            "plugin": error.plugin,
        }
    return None


def train_with(name):
    """Build an optimizer and let it change a weight."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    targets = "all-linear" if name.startswith("galore") else None
    optimizer = hub.build(name, model, target_modules=targets)
    before = model[0].weight.detach().clone()
    for _ in range(6):  # schedule_free_radam moves nothing in its first four steps
        model(torch.randn(4, 64)).square().mean().backward()
        optimizer.step()
    assert not torch.equal(model[0].weight, before), f"{name} trains nothing"


main()
