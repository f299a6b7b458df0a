"""Handle arguments meant for other optimizers, and groups made by subclasses of the Trainer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import Trainer
from transformers.training_args import OptimizerNames

from hub.arguments.grammar import parse_arguments
from hub.errors import HubError, HubWarning
from hub.names import describe, list_optimizers
from hub.names.registry import default_registry
from hub.spec import Trait

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import TrainingArguments

GROUPS = ("params", "model", "optimizer_dict")
"""The keywords that stand for the parameters that a class is called with (Transformers 5.23)."""


def groups_of(trainer: Trainer, args: TrainingArguments, model: Module | None) -> object:
    """Return the groups that a subclass of the Trainer makes when it chooses a class, or None.

    Sentence Transformers (6.2) puts its loss's parameters and its `learning_rate_mapping` there. A
    Trainer that was passed `optimizer_cls_and_kwargs` does not call that method.
    """
    theirs = Trainer.get_optimizer_cls_and_kwargs
    if (
        trainer.optimizer_cls_and_kwargs is None
        or type(trainer).get_optimizer_cls_and_kwargs is theirs
    ):
        return None
    neutral = copy.copy(args)
    neutral.optim, neutral.optim_args = OptimizerNames.ADAMW_TORCH, None
    _, keywords = trainer.get_optimizer_cls_and_kwargs(neutral, model)
    return next((keywords[key] for key in GROUPS if key in keywords), None)


def own_arguments(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `optim_args` and `optim_target_modules` without what this optimizer does not take.

    Transformers ignores arguments for other optimizers, so that a search over `optim` can use one
    set of arguments for all names. hub warns about each of them. Arguments that no optimizer takes
    stay, and are an error later.

    Args:
        name: The optimizer.
        values: The trainer's arguments.
    """
    own: dict[str, Any] = {}
    targets = values.get("optim_target_modules")
    if targets is not None and Trait.LOW_RANK not in describe(name).traits:
        _warn(f"{name} has no low-rank groups: optim_target_modules has no effect")
        own["optim_target_modules"] = None
    given = _parsed(name, values.get("optim_args"))
    known = describe(name).arguments.model_fields
    foreign = [key for key in given if key not in known and _is_anyones(key)]
    if foreign:
        _warn(f"{name} does not take {', '.join(foreign)}; optim_args sets it without effect")
        own["optim_args"] = {key: given[key] for key in given if key not in foreign} or None
    return own


def _parsed(name: str, given: object) -> Mapping[str, Any]:
    """Return `optim_args` as a mapping, or an empty one if others parse it or report its errors."""
    if isinstance(given, str):
        plugin = default_registry().plugin("optimizer", name)
        theirs = plugin.hooks.hub_parse_optim_args(name=name, text=given)
        try:
            return parse_arguments(given) if theirs is None else {}
        except HubError:
            return {}
    return given if isinstance(given, Mapping) else {}


def _is_anyones(key: object) -> bool:
    """Return whether any installed optimizer has an argument of this name."""
    for name in list_optimizers():
        try:
            if key in describe(name).arguments.model_fields:
                return True
        except HubError:  # a broken plugin, which is an error only when its name is used
            continue
    return False


def _warn(text: str) -> None:
    warnings.warn(text, HubWarning, stacklevel=2)
