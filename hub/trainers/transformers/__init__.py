"""Use hub's optimizers in Transformers' trainers, and in TRL's, which extend them.

There are three ways; prefer the first:

- `optimizer`, for `Trainer(..., optimizer_cls_and_kwargs=...)`, and `attach`, for trainers whose
  constructor does not take that argument. They patch nothing.
- `hub_arguments`: a `TrainingArguments`, `SFTConfig`, ... whose `optim` may be any name, for
  command lines and YAML files.
- `enable`: plain `TrainingArguments(optim=...)`, by adding hub's names to Transformers' enum.

All three read everything else from the trainer's arguments, through `hub.create_optimizer`. The
trainer still builds the schedule and clips the gradients. Written for Transformers 5.23.
"""

from hub.trainers.transformers.arguments import hub_arguments
from hub.trainers.transformers.create import attach, optimizer
from hub.trainers.transformers.enum_patch import disable, enable

__all__ = ["attach", "disable", "enable", "hub_arguments", "optimizer"]
