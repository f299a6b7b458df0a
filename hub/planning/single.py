"""Plan one optimizer for a model, or for the part of it that it trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hub import backend
from hub.arguments import InBackward
from hub.arguments.checks import check_clipping
from hub.arguments.resolve import ResolvedArguments, resolve_arguments, with_changes
from hub.errors import HubError, PluginError, for_author
from hub.groups.modules import (
    embedding_weights,
    names_by_id,
    trainable_parameters,
    transposed_weights,
)
from hub.groups.split import split_into_groups
from hub.groups.targets import targets_for
from hub.planning.coverage import coverage_findings
from hub.planning.offload import offload_findings
from hub.planning.places import layout_notes, planned_layouts, with_places
from hub.planning.precision import (
    detect_precision,
    precision_findings,
    rounding_of,
    stepped_precision,
)
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
    from hub.names.registry import Plugin
    from hub.planning.call import BuildCall, OptimArgs
    from hub.planning.found import Found
    from hub.planning.routing import Router
    from hub.plans import PlannedGroup
    from hub.running.sharded.meshes import MeshLayout
    from hub.spec import OptimizerSpec, Precision


@dataclass(frozen=True)
class Part:
    """The part of a model that one of several optimizers trains."""

    label: str
    """What the names of its groups begin with, if not empty."""
    trainable: Named
    """The names and parameters, in the model's order."""
    why: Mapping[str, str]
    """Why parameters are in this part, by name."""


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
    label: str = ""
    """If several optimizers share the model: what the names of this one's groups begin with."""
    members: tuple[Prepared, ...] = ()
    """If several optimizers share the model: each of them."""
    router: Router | None = None
    """Then also what assigns parameters to them."""

    @property
    def parts(self) -> tuple[Prepared, ...]:
        """What is built: the members, or this alone."""
        return self.members or (self,)

    def construct(self, context: BuildContext) -> Optimizer | None:
        """Call the spec's factory, or else the plugin's hook, for this context or one like it."""
        spec, arguments = _own(self.spec, self.optim_args)
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


@dataclass(frozen=True)
class _Draft:
    """What does not depend on the final arguments; makes groups and findings from them."""

    call: BuildCall
    given: GivenGroups | None
    spec: OptimizerSpec
    part: Part
    targets: Targets
    precision: Precision

    @property
    def trainable(self) -> Named:
        return self.part.trainable

    def groups(self, arguments: BaseModel) -> tuple[PlannedGroup, ...]:
        low_rank = self.targets.weights if Trait.LOW_RANK in self.spec.traits else set()
        if self.given is not None:
            groups = self.given.split(self.spec, arguments, low_rank=low_rank)
        else:
            groups = split_into_groups(
                self.call.model,
                self.spec,
                arguments,
                trainable=self.trainable,
                low_rank=low_rank,
                param_rules=self.call.param_rules,
                why=self.part.why,
            )
        label = self.part.label
        return tuple(replace(g, name=f"{label}.{g.name}") for g in groups) if label else groups

    def context(self, arguments: BaseModel, groups: Iterable[PlannedGroup]) -> BuildContext:
        parameters = dict(self.trainable)
        return BuildContext(
            model=self.call.model,
            groups=tuple(_live(group, parameters, self.spec, arguments) for group in groups),
            precision=stepped_precision(self.precision, rounding_of(arguments)),
            embeddings=self._named(embedding_weights(self.call.model)),
            transposed=self._named(transposed_weights(self.call.model)),
        )

    def layouts(self, arguments: BaseModel, groups: Sequence[PlannedGroup]) -> list[MeshLayout]:
        return planned_layouts(self.spec, dict(arguments), groups, dict(self.trainable))

    def _named(self, weights: set[nn.Parameter]) -> frozenset[str]:
        if not weights:
            return frozenset()
        named = {id(parameter): name for name, parameter in self.trainable}
        names = {**names_by_id(self.call.model), **named}
        return frozenset(names[id(weight)] for weight in weights)

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
            *precision_findings(
                self.spec,
                self.precision,
                self.trainable,
                rates,
                without_traits=lost,
                rounding=rounding_of(arguments),
            ),
            *offload_findings(self.spec, getattr(arguments, "offload", None), self.trainable),
            *own,
            *self.targets.findings,
            *coverage_findings(self.spec, arguments, groups),
            *layout_notes(layouts),
            *_known_failures(self.spec),
        )


def prepare_single(
    call: BuildCall, found: Found, part: Part | None = None, given: GivenGroups | None = None
) -> Prepared:
    """Resolve a call's arguments against its model; raise as `hub.build` does.

    Args:
        call: The arguments of `hub.build`.
        found: What has the call's name.
        part: What this optimizer trains; None: all of the model.
        given: Groups of the same model, in place of those that hub makes.
    """
    plugin, spec, optim_args = found
    options = _options(plugin, spec, optim_args, call)
    if Trait.STEPS_IN_BACKWARD in spec.traits:
        check_clipping(
            spec.name, options.model, call.max_grad_norm, call.gradient_accumulation_steps
        )
    draft = _draft(call, given, spec, part)
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
        label=draft.part.label,
    )


def _draft(
    call: BuildCall, given: GivenGroups | None, spec: OptimizerSpec, part: Part | None
) -> _Draft:
    targets = targets_for(spec, call.model, call.target_modules)
    if part is None:
        whole = trainable_parameters(call.model) if given is None else given.trainable
        part = Part("", whole, {})
    else:
        targets = targets.among({parameter for _, parameter in part.trainable})
    precision = detect_precision(part.trainable, call.precision)
    return _Draft(call, given, spec, part, targets, precision)


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
        defaults=call.defaults_for(spec.arguments),
    )


def _own(spec: OptimizerSpec, arguments: BaseModel) -> tuple[OptimizerSpec, BaseModel]:
    """Return what a plugin is called with: its own spec and arguments, without hub's."""
    spec = spec.eager_spec or spec
    model = spec.own_arguments or spec.arguments
    own = {key: getattr(arguments, key) for key in model.model_fields}
    return spec, model.model_construct(arguments.model_fields_set & own.keys(), **own)


def _for_constructor(spec: OptimizerSpec, arguments: BaseModel) -> dict[str, Any]:
    """Return the arguments, without those of low-rank groups and of the engine."""
    elsewhere = {*spec.low_rank, *InBackward.model_fields}
    return {key: value for key, value in arguments if key not in elsewhere}


def _plugin_findings(
    plugin: Plugin, spec: OptimizerSpec, options: ResolvedArguments, context: BuildContext
) -> tuple[Finding, ...]:
    """Return the plugin's own findings."""
    eager, arguments = _own(spec, options.model)
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
