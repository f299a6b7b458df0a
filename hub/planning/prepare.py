"""`hub.plan`: decide everything that `hub.build` will do, before it does anything."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hub import backend
from hub.arguments import InBackward
from hub.arguments.checks import check_build_call, check_clipping
from hub.arguments.resolve import ResolvedArguments, resolve_arguments, with_changes
from hub.errors import HubError, OptimArgsError, PluginError, for_author
from hub.groups.modules import embedding_weights, trainable_parameters
from hub.groups.split import split_into_groups
from hub.groups.targets import targets_for
from hub.names.by_class import adopt_class
from hub.names.registry import default_registry
from hub.planning.coverage import coverage_findings
from hub.planning.precision import detect_precision, precision_findings
from hub.planning.readiness import readiness_findings
from hub.plans import Plan
from hub.spec import BuildContext, Finding, ParameterGroup, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel
    from torch import nn
    from torch.optim import Optimizer

    from hub.groups.given import GivenGroups
    from hub.groups.split import Rules
    from hub.names.by_class import OptimizerClass
    from hub.names.registry import Plugin, Registry
    from hub.plans import PlannedGroup
    from hub.spec import OptimizerSpec

    OptimArgs = str | Mapping[str, Any] | None

OF_BUILD = (
    "optim_args",
    "target_modules",
    "defaults",
    "param_rules",
    "precision",
    "gradient_accumulation_steps",
    "max_grad_norm",
)
"""The arguments of `hub.build` that are not the optimizer's."""


@dataclass(frozen=True)
class Prepared:
    """A plan with the live objects that `hub.build` needs to execute it."""

    plan: Plan
    plugin: Plugin
    spec: OptimizerSpec
    optim_args: BaseModel
    targets: Mapping[str, nn.Module]
    context: BuildContext

    def construct(self, context: BuildContext) -> Optimizer | None:
        """Call the spec's factory, or else the plugin's hook, for this context or one like it."""
        spec, arguments = _eager(self.spec, self.optim_args)
        # Creating a torch optimizer imports it (torch/_compile.py), without our lock.
        backend.load("torch._dynamo")
        optimizer: Optimizer | None
        if spec.factory:
            factory = backend.load_object(spec.factory)
            optimizer = factory(context.param_groups(), **_for_constructor(spec, arguments))
        else:
            optimizer = self.plugin.hooks.hub_build_optimizer(
                name=spec.name, optim_args=arguments, target_modules=self.targets, context=context
            )
        return optimizer


def plan(
    name: str | OptimizerClass,
    model: nn.Module,
    *,
    optim_args: OptimArgs = None,
    target_modules: str | Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    param_rules: Rules | None = None,
    precision: str | None = None,
    gradient_accumulation_steps: int = 1,
    max_grad_norm: float | None = None,
    **hyperparameters: Any,
) -> Plan:
    """Return what `hub.build` would do with the same arguments, without building anything.

    See `hub.build` for the arguments, and for the errors that bad input raises in both. Whatever
    else makes `hub.build` refuse is a finding here: `plan.refused` says whether it will, and
    `plan.refusal` is the error. A model on the meta device can be planned, but not built. Failures
    of the package itself, such as of its import, only show in a build.
    """
    return prepare(
        name,
        model,
        optim_args=optim_args,
        target_modules=target_modules,
        defaults=defaults,
        param_rules=param_rules,
        precision=precision,
        gradient_accumulation_steps=gradient_accumulation_steps,
        max_grad_norm=max_grad_norm,
        hyperparameters=hyperparameters,
    ).plan


def find_optimizer(
    name: str | OptimizerClass, optim_args: OptimArgs, registry: Registry
) -> tuple[Plugin, OptimizerSpec, OptimArgs]:
    """Return the plugin, spec and `optim_args` of a name, or of a class or factory.

    Raises:
        HubError: As `hub.build` does for a name; or a class comes with `optim_args` as well.
    """
    if not (isinstance(name, tuple) or callable(name)):
        return registry.plugin("optimizer", name), registry.optimizer(name), optim_args
    found, plugin, arguments = adopt_class(name, registry)
    if optim_args is not None:
        raise OptimArgsError(
            f"{found} already has its arguments, but optim_args are given too",
            where="optim_args",
            fix="pass all of them with the class",
        )
    return plugin, plugin.optimizers[found], arguments


def prepare(
    name: str | OptimizerClass,
    model: nn.Module,
    *,
    optim_args: OptimArgs = None,
    target_modules: str | Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    param_rules: Rules | None = None,
    precision: str | None = None,
    gradient_accumulation_steps: int = 1,
    max_grad_norm: float | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    given: GivenGroups | None = None,
    registry: Registry | None = None,
) -> Prepared:
    """Resolve a name and its arguments against a model; see `hub.build` for both and the errors.

    `given` groups, of the same model, take the place of those that hub makes.
    """
    check_build_call(model, gradient_accumulation_steps, max_grad_norm)
    plugin, spec, optim_args = find_optimizer(name, optim_args, registry or default_registry())
    options = _options(plugin, spec, optim_args, hyperparameters or {}, defaults)
    if Trait.STEPS_IN_BACKWARD in spec.traits:
        check_clipping(spec.name, options.model, max_grad_norm, gradient_accumulation_steps)
    trainable = trainable_parameters(model) if given is None else given.trainable
    targets = targets_for(spec, model, target_modules)
    split = (
        partial(
            split_into_groups,
            model,
            spec,
            trainable=trainable,
            low_rank=targets.weights,
            param_rules=param_rules,
        )
        if given is None
        else partial(given.split, spec, low_rank=targets.weights)
    )
    facts = detect_precision(trainable, precision)
    embeddings = frozenset(embedding_weights(model))

    def grouped(arguments: BaseModel) -> tuple[tuple[PlannedGroup, ...], BuildContext]:
        groups = split(arguments)
        return groups, BuildContext(
            model=model,
            groups=tuple(_live(group, dict(trainable), spec, arguments) for group in groups),
            precision=facts,
            embeddings=embeddings,
        )

    groups, context = grouped(options.model)
    asked = _plugin_findings(plugin, spec, options, context)
    changes = {key: value for finding in asked for key, value in finding.instead.items()}
    if changes:
        options = with_changes(spec.name, options, changes)
        groups, context = grouped(options.model)
    lacking = {trait for finding in asked for trait in finding.without_traits}
    checked = precision_findings(
        spec, facts, trainable, _learning_rates(options.model, groups), lacking
    )
    return Prepared(
        plan=Plan(
            optimizer=spec.name,
            distribution=plugin.source.distribution,
            arguments=options.arguments,
            target_modules=tuple(targets.modules),
            groups=groups,
            precision=facts,
            gradient_accumulation_steps=gradient_accumulation_steps,
            max_grad_norm=max_grad_norm,
            findings=(
                *readiness_findings(spec, trainable),
                *checked,
                *asked,
                *targets.findings,
                *coverage_findings(spec, options.model, groups),
                *_known_failures(spec),
            ),
        ),
        plugin=plugin,
        spec=spec,
        optim_args=options.model,
        targets=targets.modules,
        context=context,
    )


def _options(
    plugin: Plugin,
    spec: OptimizerSpec,
    optim_args: OptimArgs,
    hyperparameters: Mapping[str, Any],
    defaults: Mapping[str, Any] | None,
) -> ResolvedArguments:
    if isinstance(optim_args, str):
        parsed = plugin.hooks.hub_parse_optim_args(name=spec.name, text=optim_args)
        optim_args = optim_args if parsed is None else parsed
    return resolve_arguments(
        spec.name,
        spec.arguments,
        optim_args=optim_args,
        hyperparameters=hyperparameters,
        defaults=defaults,
    )


def _eager(spec: OptimizerSpec, arguments: BaseModel) -> tuple[OptimizerSpec, BaseModel]:
    """Return what a plugin is called with for a layerwise form: the eager spec and arguments."""
    if spec.eager_spec is None:
        return spec, arguments
    spec = spec.eager_spec
    own = {key: getattr(arguments, key) for key in spec.arguments.model_fields}
    return spec, spec.arguments.model_construct(arguments.model_fields_set, **own)


def _for_constructor(spec: OptimizerSpec, arguments: BaseModel) -> dict[str, Any]:
    """Return the arguments, without those of low-rank groups and of the engine."""
    elsewhere = {*spec.low_rank, *InBackward.model_fields}
    return {key: value for key, value in arguments if key not in elsewhere}


def _plugin_findings(
    plugin: Plugin, spec: OptimizerSpec, options: ResolvedArguments, context: BuildContext
) -> tuple[Finding, ...]:
    """Return the plugin's own findings."""
    eager, arguments = _eager(spec, options.model)
    try:
        results = plugin.hooks.hub_validate_precision(
            name=eager.name, optim_args=arguments, context=context
        )
        return tuple(finding for result in results for finding in result or ())
    except HubError:
        raise
    except Exception as error:  # third-party code
        raise PluginError(
            f"the plugin of {spec.name} failed to check the build: {type(error).__name__}: {error}",
            where="hub_validate_precision",
            fix=for_author(
                "return findings; hub_validate_precision gets validated arguments",
                plugin.source.distribution,
            ),
            plugin=plugin.source.distribution,
        ) from error


def _known_failures(spec: OptimizerSpec) -> list[Finding]:
    return [
        Finding.note(f"known failure of hub's check '{check}': {why}")
        for check, why in spec.known_failures.items()
    ]


def _live(
    group: PlannedGroup,
    parameters: Mapping[str, nn.Parameter],
    spec: OptimizerSpec,
    arguments: BaseModel,
) -> ParameterGroup:
    """Return a planned group with its parameters, and all arguments that it overrides."""
    own = {
        key: value
        for key, value in arguments
        if (key == "weight_decay" and key in spec.per_group)
        or (key in spec.low_rank and group.low_rank)
    }
    elsewhere = frozenset() if group.low_rank else spec.low_rank
    rule = {key: value for key, value in group.overrides.items() if key not in elsewhere}
    return ParameterGroup(
        name=group.name,
        parameters=tuple((p.name, parameters[p.name]) for p in group.parameters),
        overrides={**own, **rule},
        low_rank=group.low_rank,
    )


def _learning_rates(arguments: BaseModel, groups: Iterable[PlannedGroup]) -> list[float]:
    """Return the learning rate of each group, if the optimizer has one."""
    base = getattr(arguments, "lr", None)
    rates = [group.overrides.get("lr", base) for group in groups]
    return [rate for rate in rates if rate]
