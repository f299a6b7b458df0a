"""Attach hub's behavior to a built optimizer, and detach it again."""

from __future__ import annotations

import weakref
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import UnsupportedError
from hub.groups.modules import names_by_id
from hub.running.buckets.loading import finish_loads, load_for_stand_ins
from hub.running.buckets.rounding import prepare_state
from hub.running.buckets.saved import save_bits
from hub.running.buckets.stepping import stepping_of
from hub.running.clipping import clip_before_step
from hub.running.copies import allow_copies, refuse_copies
from hub.running.layerwise.settings import Settings
from hub.running.layerwise.subclass import make_eager, make_layerwise
from hub.running.mixed.optimizer import MixedOptimizer
from hub.running.sharded.attach import save_sharded, step_eagerly
from hub.running.sharded.late import LateSharding
from hub.running.steps import named_group, unwrapped
from hub.running.train_eval.attach import follow_model_mode, stop_following, switches_weights
from hub.saving.load import sign_state_dicts
from hub.saving.record import Record
from hub.spec import Trait
from hub.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from hub.plans import Plan
    from hub.running.buckets.stepping import Stepping
    from hub.running.mixed.optimizer import Route
    from hub.spec import OptimizerSpec


_attached: weakref.WeakSet[Optimizer] = weakref.WeakSet()
"""The optimizers that `hub.detach(model)` searches, held weakly."""
_lock = Lock()
"""Guards `_attached`."""


def attach_behavior(optimizer: Optimizer, plan: Plan, spec: OptimizerSpec, model: Module) -> None:
    """Attach the plan and the behavior it requires to an optimizer.

    The plan becomes `optimizer.hub_plan`. The hooks are torch's, so `step()` is not wrapped.
    """
    handles: list[RemovableHandle] = []
    stepping = stepping_of(plan, spec)
    late = LateSharding(optimizer, model, plan, spec)
    optimizer.hub_late_sharding = late  # type: ignore[attr-defined]
    optimizer.hub_stepping = stepping  # type: ignore[attr-defined]
    if stepping.rounding is not None:
        prepare_state(optimizer, stepping.rounding)
        save_bits(optimizer)
    if Trait.STEPS_IN_BACKWARD not in spec.traits:
        step_eagerly(optimizer, late, stepping)
    if Trait.TRAIN_EVAL_MODES in spec.traits:
        # First, because it compares the gradients before they are clipped.
        follow_model_mode(optimizer, model)
    if Trait.STEPS_IN_BACKWARD in spec.traits:
        make_layerwise(optimizer, _settings(plan, spec, stepping), model, late)
    elif plan.max_grad_norm is not None:
        handles.append(optimizer.register_step_pre_hook(clip_before_step(plan.max_grad_norm)))
    if stepping.in_buckets:
        load_for_stand_ins(optimizer, stepping, late.members.stepped_shape)
    save_sharded(optimizer, late)
    sign_state_dicts(
        optimizer,
        Record(
            version=__version__,
            optimizer=spec.shares_state_with or spec.name,
            arguments=plan.values,
            overrides={group.name: dict(group.overrides) for group in plan.groups},
            state_arguments=spec.state_arguments,
        ),
    )
    if stepping.in_buckets:
        finish_loads(optimizer, stepping)
    refuse_copies(optimizer, plan.optimizer, for_good=stepping.in_buckets)
    optimizer.add_param_group = _naming(optimizer, model)  # type: ignore[method-assign,assignment]
    optimizer.hub_plan = plan  # type: ignore[attr-defined]
    optimizer._hub_handles = handles  # type: ignore[attr-defined]  # noqa: SLF001 - ours
    with _lock:
        _attached.add(optimizer)


def mix(members: Mapping[str, Optimizer], plan: Plan, model: Module, route: Route) -> Optimizer:
    """Return one optimizer of several that share a model, each with its behavior attached.

    Args:
        members: By label.
        plan: The plan of all.
        model: The model.
        route: As for `MixedOptimizer`.
    """
    optimizer: Any = MixedOptimizer(members, model, route)
    handles = []
    if plan.max_grad_norm is not None and not any(
        hasattr(member, "hub_engine") for member in optimizer.hub_members
    ):
        handles.append(optimizer.register_step_pre_hook(clip_before_step(plan.max_grad_norm)))
    in_buckets = any(member.hub_stepping.in_buckets for member in optimizer.hub_members)
    refuse_copies(optimizer, plan.optimizer, for_good=in_buckets)
    optimizer.hub_plan = plan
    optimizer._hub_handles = handles  # noqa: SLF001 - ours
    with _lock:
        _attached.add(optimizer)
    return optimizer  # type: ignore[no-any-return]


def optimizers_of(parameters: Iterable[Tensor]) -> Iterator[tuple[Optimizer, Tensor]]:
    """Yield each live optimizer that holds some of these parameters, with one of them."""
    asked = {id(parameter) for parameter in parameters}
    with _lock:
        living = list(_attached)
    for optimizer in living:
        held = (p for group in optimizer.param_groups for p in group["params"] if id(p) in asked)
        for parameter in islice(held, 1):
            yield optimizer, parameter


def check_not_switched(named: Iterable[tuple[str, Tensor]]) -> None:
    """Check that no live optimizer switches the weights of these parameters.

    Raises:
        UnsupportedError: One does; the error names the optimizer.
    """
    names = {parameter: name for name, parameter in named}
    for optimizer, parameter in optimizers_of(names):
        if switches_weights(optimizer):
            plan: Plan = optimizer.hub_plan  # type: ignore[attr-defined]
            raise UnsupportedError(
                f"{plan.optimizer} still switches {names[parameter]} between training and "
                "evaluation weights",
                where="model",
                fix="call hub.detach(model) first, which keeps the current weights: the evaluation "
                "weights after model.eval()",
            )


def detach(optimizer: Optimizer | Module) -> None:
    """Remove what `hub.build` attached to an optimizer and its model, except for state dicts.

    Clipping ends. An optimizer that stepped inside the backward pass steps eagerly from then on.
    Weights that followed the model's mode stay as they are; switch them with the optimizer's own
    `train()` and `eval()`. The optimizer can be copied as its class allows. State dicts keep their
    form, so that existing checkpoints still load. `rounding` and `offload` go on, and then copies
    stay refused.

    Args:
        optimizer: An optimizer built by hub, or a model, for every optimizer that hub built for it.

    Raises:
        HubError: It is neither.
    """
    if isinstance(optimizer, torch.nn.Module):
        for one, _ in optimizers_of(optimizer.parameters()):
            detach(one)
        return
    inner = unwrapped(optimizer)
    if isinstance(inner, MixedOptimizer):
        for member in inner.hub_members:
            detach(member)
    with _lock:
        _attached.discard(inner)
    make_eager(inner)
    stop_following(inner)
    vars(inner).pop("add_param_group", None)
    allow_copies(inner)
    for handle in vars(inner).pop("_hub_handles", []):
        handle.remove()


def _settings(plan: Plan, spec: OptimizerSpec, stepping: Stepping) -> Settings:
    arguments = plan.values
    return Settings(
        name=plan.optimizer,
        accumulation=plan.gradient_accumulation_steps,
        max_grad_norm=plan.max_grad_norm,
        clipping=arguments.get("clipping"),
        clip_grad_value=arguments.get("clip_grad_value"),
        stepping=stepping,
        self_ending=spec.eager_spec is None,
    )


def _naming(optimizer: Optimizer, model: Module) -> Callable[[dict[str, Any]], None]:
    """Return an `add_param_group` that adds parameter names to a group without them.

    torch (2.13, `Optimizer.add_param_group`) refuses a group without names if the others have them.
    """
    live, whole = weakref.ref(optimizer), weakref.ref(model)

    def add_param_group(param_group: dict[str, Any]) -> None:
        inner: Any = live()
        model = whole()
        names = names_by_id(model) if model is not None else {}
        named = named_group(param_group, names, len(inner.param_groups))
        type(inner).add_param_group(inner, named)

    return add_param_group
