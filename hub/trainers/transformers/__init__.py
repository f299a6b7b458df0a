"""Every optimizer of hub in Transformers' trainers, and in those of TRL made from them.

Three ways in, the first preferred:

- `optimizer`, for `Trainer(..., optimizer_cls_and_kwargs=...)`, and `attach` for trainers whose
  constructor does not take that. They patch nothing.
- `hub_arguments`: a `TrainingArguments`, `SFTConfig`, ... whose `optim` is any name, for command
  lines and YAML files.
- `enable`: plain `TrainingArguments(optim=...)`, by adding hub's names to Transformers' own enum.

All three read everything else from the trainer's arguments, by `hub.create_optimizer`; schedules
and the clipping of gradients stay the trainer's own. Written for Transformers 5.23.
"""

from hub.trainers.transformers.arguments import hub_arguments
from hub.trainers.transformers.create import attach, optimizer
from hub.trainers.transformers.enum_patch import disable, enable

__all__ = ["attach", "disable", "enable", "hub_arguments", "optimizer"]
