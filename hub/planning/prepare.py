"""`hub.plan`: decide everything that `hub.build` will do, before it does anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hub import backend
from hub.arguments import InBackward
from hub.arguments.checks import check_build_call, check_clipping
from hub.arguments.resolve import ResolvedArguments, resolve_arguments, with_changes
from hub.errors import HubError, OptimArgsError, PluginError, for_author
from hub.groups.modules import embedding_weights, names_by_id, trainable_parameters
from hub.groups.split import split_into_groups
from hub.groups.targets import targets_for
from hub.names.registry import default_registry
from hub.planning.call import takes_build_arguments
from hub.planning.coverage import coverage_findings
from hub.planning.places import layout_notes, planned_layouts, with_places
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
    from hub.groups.split import Named
    from hub.groups.targets import Targets
    from hub.names.by_class import OptimizerClass
    from hub.names.registry import Plugin, Registry
    from hub.planning.call import BuildCall, OptimArgs
    from hub.plans import PlannedGroup
    from hub.running.sharded.meshes import MeshLayout
    from hub.spec import OptimizerSpec, Precision


@dataclass(frozen=True)
class Prepared:
    """A plan with the live objects that `hub.build` needs to execute it."""

    plan: Plan
    plugin: Plugin
    spec: OptimizerSpec
    optim_args: BaseModel
    targets: Mapping[str, nn.Module]
    context: BuildContext
    layouts: tuple[MeshLayout, ...] = ()

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


@takes_build_arguments
def plan(call: BuildCall) -> Plan:
    """Return what `hub.build` would do with the same arguments, without building anything.

    See `hub.build` for the arguments, and for the errors that bad input raises in both. Whatever
    else makes `hub.build` refuse is a finding here: `plan.refused` says whether it will, and
    `plan.refusal` is the error. A model on the meta device can be planned, but not built. Failures
    of the package itself, such as of its import, only show in a build.
    """
    return prepare(call).plan


def find_optimizer(
    name: str | OptimizerClass, optim_args: OptimArgs, registry: Registry
) -> tuple[Plugin, OptimizerSpec, OptimArgs]:
    """Return the plugin, spec and `optim_args` of a name or import path, or of a class or factory.

    Raises:
        HubError: As `hub.build` does for a name; or a class comes with `optim_args` as well.
    """
    if not (isinstance(name, tuple) or callable(name)):
        return registry.plugin("optimizer", name), registry.optimizer(name), optim_args
    plugin, arguments = registry.adopt_class(name)
    (spec,) = plugin.optimizers.values()
    if optim_args is not None:
        raise OptimArgsError(
            f"{spec.name} already has its arguments, but optim_args are given too",
            where="optim_args",
            fix="pass all of them with the class",
        )
    return plugin, spec, arguments


@dataclass(frozen=True)
class _Draft:
    """What does not depend on the final arguments; makes groups and findings from them."""

    call: BuildCall
    given: GivenGroups | None
    spec: OptimizerSpec
    trainable: Named
    targets: Targets
    precision: Precision

    def groups(self, arguments: BaseModel) -> tuple[PlannedGroup, ...]:
        low_rank = self.targets.weights
        if self.given is not None:
            return self.given.split(self.spec, arguments, low_rank=low_rank)
        return split_into_groups(
            self.call.model,
            self.spec,
            arguments,
            trainable=self.trainable,
            low_rank=low_rank,
            param_rules=self.call.param_rules,
        )

    def context(self, arguments: BaseModel, groups: Iterable[PlannedGroup]) -> BuildContext:
        parameters = dict(self.trainable)
        return BuildContext(
            model=self.call.model,
            groups=tuple(_live(group, parameters, self.spec, arguments) for group in groups),
            precision=self.precision,
            embeddings=self._embeddings(),
        )

    def layouts(self, arguments: BaseModel, groups: Sequence[PlannedGroup]) -> list[MeshLayout]:
        return planned_layouts(self.spec, dict(arguments), groups, dict(self.trainable))

    def _embeddings(self) -> frozenset[str]:
        named = {id(parameter): name for name, parameter in self.trainable}
        names = {**names_by_id(self.call.model), **named}
        return frozenset(names[id(weight)] for weight in embedding_weights(self.call.model))

    def findings(
        self,
        arguments: BaseModel,
        groups: Sequence[PlannedGroup],
        own: Sequence[Finding],
        layouts: Sequence[MeshLayout],
    ) -> tuple[Finding, ...]:
        """Return all findings, with the plugin's own among them."""
        lost = {trait for finding in own for trait in finding.without_traits}
        rates = _learning_rates(arguments, groups)
        return (
            *readiness_findings(self.spec, arguments, self.call.model, self.trainable),
            *precision_findings(self.spec, self.precision, self.trainable, rates, lost),
            *own,
            *self.targets.findings,
            *coverage_findings(self.spec, arguments, groups),
            *layout_notes(layouts),
            *_known_failures(self.spec),
        )


def prepare(
    call: BuildCall, *, given: GivenGroups | None = None, registry: Registry | None = None
) -> Prepared:
    """Resolve a call's name and arguments against its model; raise as `hub.build` does.

    Args:
        call: The arguments of `hub.build`.
        given: Groups of the same model, in place of those that hub makes.
        registry: Where to look the name up; by default, that of this environment.
    """
    check_build_call(call.model, call.gradient_accumulation_steps, call.max_grad_norm)
    plugin, spec, optim_args = find_optimizer(
        call.name, call.optim_args, registry or default_registry()
    )
    options = _options(plugin, spec, optim_args, call)
    if Trait.STEPS_IN_BACKWARD in spec.traits:
        check_clipping(
            spec.name, options.model, call.max_grad_norm, call.gradient_accumulation_steps
        )
    draft = _draft(call, given, spec)
    groups = draft.groups(options.model)
    context = draft.context(options.model, groups)
    own = _plugin_findings(plugin, spec, options, context)
    changes = {key: value for finding in own for key, value in finding.instead.items()}
    if changes:
        options = with_changes(spec.name, options, changes)
        groups = draft.groups(options.model)
        context = draft.context(options.model, groups)
    layouts = draft.layouts(options.model, groups)
    return Prepared(
        plan=Plan(
            optimizer=spec.name,
            distribution=plugin.source.distribution,
            arguments=options.arguments,
            target_modules=tuple(draft.targets.modules),
            groups=with_places(groups, layouts),
            precision=draft.precision,
            gradient_accumulation_steps=call.gradient_accumulation_steps,
            max_grad_norm=call.max_grad_norm,
            findings=draft.findings(options.model, groups, own, layouts),
        ),
        plugin=plugin,
        spec=spec,
        optim_args=options.model,
        targets=draft.targets.modules,
        context=context,
        layouts=tuple(layouts),
    )


def _draft(call: BuildCall, given: GivenGroups | None, spec: OptimizerSpec) -> _Draft:
    trainable = trainable_parameters(call.model) if given is None else given.trainable
    targets = targets_for(spec, call.model, call.target_modules)
    return _Draft(
        call, given, spec, trainable, targets, detect_precision(trainable, call.precision)
    )


def _options(
    plugin: Plugin, spec: OptimizerSpec, optim_args: OptimArgs, call: BuildCall
) -> ResolvedArguments:
    if isinstance(optim_args, str):
        parsed = plugin.hooks.hub_parse_optim_args(name=spec.name, text=optim_args)
        optim_args = optim_args if parsed is None else parsed
    return resolve_arguments(
        spec.name,
        spec.arguments,
        optim_args=optim_args,
        hyperparameters=call.hyperparameters,
        defaults=call.defaults,
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
