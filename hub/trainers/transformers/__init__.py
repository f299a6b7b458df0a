"""Use hub's optimizers in Transformers' trainers, and in TRL's, which extend them.

There are four ways; prefer the first:

- `optimizer`, for `Trainer(..., optimizer_cls_and_kwargs=...)`, and `attach`, for trainers whose
  constructor does not take that argument. They patch nothing.
- `hub_arguments`: a `TrainingArguments`, `SFTConfig`, ... whose `optim` may be any name, for
  command lines and YAML files.
- `enable`: plain `TrainingArguments(optim=...)`, by adding hub's names to Transformers' enum.
- `python -m hub.trainers.transformers -- COMMAND`: `enable` in the processes of somebody else's
  command, such as `trl sft`.

All read everything else from the trainer's arguments, through `hub.create_optimizer`. The trainer
still builds the schedule and clips the gradients. Written for Transformers 5.23.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.trainers.transformers.arguments import hub_arguments
    from hub.trainers.transformers.create import attach, optimizer
    from hub.trainers.transformers.enabling import disable, enable

__all__ = ["attach", "disable", "enable", "hub_arguments", "optimizer"]

# Imported when they are used, so that `python -m` starts its command without Transformers.
_HOME_OF = {
    "attach": "create",
    "disable": "enabling",
    "enable": "enabling",
    "hub_arguments": "arguments",
    "optimizer": "create",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
