"""Build from parameters, for trainers that pass no model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import distributed

from hub.building.build import build_prepared
from hub.errors import OptimArgsError, TargetModulesError, UnsupportedError
from hub.groups.from_parameters import read_parameters
from hub.groups.split import no_decay_by_name_or_shape
from hub.groups.stand_in import Embedding
from hub.names.registry import default_registry
from hub.planning.call import BuildCall
from hub.planning.prepare import prepare
from hub.spec import Finding, Trait
from hub.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.optim import Optimizer

    from hub.groups.from_parameters import FromParameters
    from hub.planning.single import Prepared
    from hub.plans import Plan
    from hub.spec import OptimizerSpec

OPTIONS: Mapping[str, Any] = {
    "target_modules": None,
    "param_rules": None,
    "precision": None,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": None,
}
"""The arguments of `hub.build` that do not need the model, with their defaults."""
_WAY_OUT = "pass model.named_parameters(), or call hub.build with the model"


def build_from_parameters(
    name: str, params: object, arguments: Mapping[str, Any], *, stacklevel: int = 2
) -> Optimizer:
    """Build an optimizer for parameters whose model is not known.

    Args:
        name: As for `hub.build`.
        params: Parameters, named parameters, or groups of either.
        arguments: Those of the optimizer, and `OPTIONS`.
        stacklevel: As for `warnings.warn`.

    Raises:
        TargetModulesError: The optimizer finds its target modules by name, and there are no names.
        UnsupportedError: It steps inside the backward pass, in several processes, whose gradients
            nobody averages.
        HubError: As for `hub.build` and `hub.groups.from_parameters.read_parameters`.
    """
    registry = default_registry()
    spec = registry.optimizer(name)
    read = read_parameters(params, spec)
    options = {key: arguments[key] for key in OPTIONS if key in arguments}
    _check_names(spec, read, options)
    call = BuildCall(name, read.model, **options)
    call.hyperparameters = {key: arguments[key] for key in arguments if key not in OPTIONS}
    prepared = prepare(call, given=read.given)
    found = (*prepared.plan.findings, *_findings(read, prepared))
    prepared = replace(prepared, plan=replace(prepared.plan, findings=found))
    return build_prepared(prepared, registry.observers(), stacklevel=stacklevel + 1)


def _check_names(spec: OptimizerSpec, read: FromParameters, options: Mapping[str, Any]) -> None:
    """Check that there are names for what is chosen by name."""
    if not read.named and spec.takes_targets:
        raise TargetModulesError(
            f"{spec.name} finds its target modules by name, but the parameters have no names",
            where="params",
            fix=_WAY_OUT,
        )
    if not options.get("param_rules"):
        return
    if read.given is not None:
        raise OptimArgsError(
            "param_rules cannot regroup parameters that are in groups already",
            where="param_rules",
            fix="leave them out, and change the groups",
        )
    if not read.named:
        raise OptimArgsError(
            "param_rules match names, but the parameters have none",
            where="param_rules",
            fix=_WAY_OUT,
        )


def _findings(read: FromParameters, prepared: Prepared) -> Iterator[Finding]:
    traits = {trait for part in prepared.parts for trait in part.spec.traits}
    if Trait.TRAIN_EVAL_MODES in traits:
        yield Finding.warn(
            "there is no model whose train() and eval() the weights could follow",
            "call optimizer.train() and optimizer.eval() with those of the model, and eval() "
            "before saving the model",
        )
    if Trait.STEPS_IN_BACKWARD in traits and _nobody_averages(read):
        yield Finding.refuse(
            UnsupportedError(
                f"{prepared.spec.name} steps inside the backward pass, and averages the gradients "
                "of several processes itself, which takes the model",
                where="params",
                fix="call hub.build with the model, or use the eager form",
            )
        )
    if prepared.plan.target_modules:
        yield _by_name(read)
    if any(map(_decays, prepared.parts)):
        yield from _decay(read, prepared.plan)


def _decays(part: Prepared) -> bool:
    return "weight_decay" in part.spec.per_group and bool(part.plan.values["weight_decay"])


def _nobody_averages(read: FromParameters) -> bool:
    several = distributed.is_available() and distributed.is_initialized()
    sharded = all(hasattr(parameter, "device_mesh") for parameter in read.model.parameters())
    return several and distributed.get_world_size() > 1 and not sharded


def _by_name(read: FromParameters) -> Finding:
    """Note that targets are chosen by name and shape, and which matrices are embeddings by name."""
    modules = read.model.named_modules()
    embeddings = [name for name, module in modules if isinstance(module, Embedding)]
    return Finding.note(
        "the target modules are 2-D weights, by name and shape; embeddings by name: "
        + (listed(embeddings) or "none"),
        "call hub.build with the model to go by the kinds of its layers",
    )


def _decay(read: FromParameters, plan: Plan) -> Iterator[Finding]:
    """Note where the model would say more about what decays."""
    if not read.named and read.given is None:
        yield Finding.note(
            "the parameters have no names: those of fewer than two dimensions are not decayed, "
            "and all others are",
            "pass model.named_parameters() to go by names as well",
        )
    for group in plan.groups if read.given is not None else ():
        exempt = [p.name for p in group.parameters if no_decay_by_name_or_shape(p.name, p.shape)]
        if exempt and "weight_decay" not in group.overrides:
            yield Finding.note(
                f"the group '{group.name}' has no weight_decay, so all its parameters are decayed, "
                f"and {len(exempt)} that hub.build would not decay, such as parameter {exempt[0]}",
                "give the group a weight_decay, or pass parameters without groups",
            )
