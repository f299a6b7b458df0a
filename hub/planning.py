"""`hub.plan`: all that `hub.build` is going to do, decided and written down before it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from hub import backend, calls, coverage, readiness
from hub import groups as grouping
from hub import options as optioning
from hub import precision as precisions
from hub import targets as targeting
from hub.errors import HubError, OptimArgsError, PluginError, for_author
from hub.modules import trainable_parameters
from hub.options import Argument, Options
from hub.registry import default_registry
from hub.signatures import adopt
from hub.spec import BuildContext, Finding, Level, ParameterGroup, Precision, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel
    from torch import nn
    from torch.optim import Optimizer

    from hub.grouped import GivenGroups
    from hub.groups import PlannedGroup, Rules
    from hub.registry import Plugin, Registry
    from hub.signatures import Given
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
class Plan:
    """Everything about one build: printable, comparable, and plain data through `to_dict`."""

    optimizer: str
    distribution: str
    arguments: tuple[Argument, ...]
    target_modules: tuple[str, ...]
    groups: tuple[grouping.PlannedGroup, ...]
    precision: Precision
    gradient_accumulation_steps: int
    max_grad_norm: float | None
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether `hub.build` will raise."""
        return self.refusal is not None

    @property
    def refusal(self) -> HubError | None:
        """What `hub.build` will raise: the error of the first finding that refuses, or None."""
        for finding in self.findings:
            if finding.level is Level.REFUSE:
                where = finding.where or self.optimizer
                return finding.error(finding.what, where, finding.fix, self.distribution)
        return None

    def materialized(self) -> Plan:
        """Return the plan without the refusal to build on the meta device."""
        kept = tuple(finding for finding in self.findings if finding != readiness.ON_META)
        return replace(self, findings=kept)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for `json.dumps`; see `hub.options.to_json` for inf."""
        data: dict[str, Any] = optioning.to_json(_adapter().dump_python(self, mode="json"))
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_dict` was called on, also after a trip through JSON.

        Raises:
            HubError: The data are not a plan's.
        """
        try:
            return _adapter().validate_python(optioning.from_json(optioning.frozen(data)))
        except ValidationError as error:
            first = error.errors()[0]
            raise HubError(
                f"the data of a plan do not fit: {first['msg']}",
                where=".".join(map(str, first["loc"])) or "Plan.from_dict",
                fix="give what Plan.to_dict returned",
            ) from error

    def __str__(self) -> str:
        from hub.rendering import plan_text

        return plan_text(self)

    def __rich__(self) -> object:
        from hub.rendering import plan_renderable

        return plan_renderable(self)


@dataclass(frozen=True)
class Prepared:
    """A plan together with the live things it is about, for `hub.build` to execute."""

    plan: Plan
    plugin: Plugin
    spec: OptimizerSpec
    optim_args: BaseModel
    targets: Mapping[str, nn.Module]
    context: BuildContext

    def construct(self, context: BuildContext) -> Optimizer | None:
        """Call the spec's factory, or else the plugin's hook, for this context or one like it."""
        name, arguments = _eager(self.spec, self.optim_args)
        # Making a torch optimizer imports it (torch/_compile.py), and not in a lock.
        backend.load("torch._dynamo")
        optimizer: Optimizer | None
        if self.spec.factory:
            factory = backend.load_object(self.spec.factory)
            optimizer = factory(context.param_groups(), **dict(arguments))
        else:
            optimizer = self.plugin.hooks.hub_build_optimizer(
                name=name, optim_args=arguments, target_modules=self.targets, context=context
            )
        return optimizer


def plan(
    name: str | Given,
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
    """Return what `hub.build` would do with the same arguments, building nothing.

    See `hub.build` for the arguments, and for the errors that bad input raises in both. Whatever
    else makes `hub.build` refuse is a finding here: `plan.refused` tells whether it will, and
    `plan.refusal` is the error. A model on the meta device can be planned, but not built. What goes
    wrong in the package itself, such as its import, is only seen by building.
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


def find(
    name: str | Given, optim_args: OptimArgs, registry: Registry
) -> tuple[Plugin, OptimizerSpec, OptimArgs]:
    """Return the plugin and spec of a name, or of a class or factory, and what is asked of it.

    Raises:
        HubError: As `hub.build` does for a name; and for `optim_args` beside a class's own.
    """
    if not (isinstance(name, tuple) or callable(name)):
        return registry.plugin("optimizer", name), registry.optimizer(name), optim_args
    found, plugin, arguments = adopt(name, registry)
    if optim_args is not None:
        raise OptimArgsError(
            f"{found} comes with arguments of its own, and there are optim_args too",
            where="optim_args",
            fix="give all of them with the class",
        )
    return plugin, plugin.optimizers[found], arguments


def prepare(
    name: str | Given,
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
    calls.check(model, gradient_accumulation_steps, max_grad_norm)
    plugin, spec, optim_args = find(name, optim_args, registry or default_registry())
    options = _options(plugin, spec, optim_args, hyperparameters or {}, defaults)
    if Trait.STEPS_IN_BACKWARD in spec.traits:
        calls.check_clipping(spec.name, options.model, max_grad_norm, gradient_accumulation_steps)
    trainable = trainable_parameters(model) if given is None else given.trainable
    targets = targeting.of(spec, model, target_modules)
    split = (
        partial(
            grouping.split,
            model,
            spec,
            trainable=trainable,
            low_rank=targets.weights,
            param_rules=param_rules,
        )
        if given is None
        else partial(given.split, spec, low_rank=targets.weights)
    )
    facts = precisions.detect(trainable, precision)

    def grouped(arguments: BaseModel) -> tuple[tuple[PlannedGroup, ...], BuildContext]:
        groups = split(arguments)
        return groups, _context(model, dict(trainable), groups, facts, _decay(spec, arguments))

    groups, context = grouped(options.model)
    asked = _asked(plugin, spec, options, context)
    changes = {key: value for finding in asked for key, value in finding.adjust.items()}
    if changes:
        options = optioning.adjusted(spec.name, options, changes)
        groups, context = grouped(options.model)
    lacking = {trait for finding in asked for trait in finding.lacks}
    checked = precisions.check(spec, facts, trainable, _rates(options.model, groups), lacking)
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
                *readiness.check(spec, trainable),
                *checked,
                *asked,
                *targets.findings,
                *coverage.check(spec, options.model, groups),
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
) -> Options:
    if isinstance(optim_args, str):
        parsed = plugin.hooks.hub_parse_optim_args(name=spec.name, text=optim_args)
        optim_args = optim_args if parsed is None else parsed
    return optioning.resolve(
        spec.name,
        spec.arguments,
        optim_args=optim_args,
        hyperparameters=hyperparameters,
        defaults=defaults,
    )


def _eager(spec: OptimizerSpec, arguments: BaseModel) -> tuple[str, BaseModel]:
    """Return what a plugin is called with for a layerwise form, of which it knows nothing."""
    if spec.layerwise_of is None:
        return spec.name, arguments
    spec = spec.layerwise_of
    own = {key: getattr(arguments, key) for key in spec.arguments.model_fields}
    return spec.name, spec.arguments.model_construct(arguments.model_fields_set, **own)


def _asked(
    plugin: Plugin, spec: OptimizerSpec, options: Options, context: BuildContext
) -> tuple[Finding, ...]:
    """Return what the plugin itself finds."""
    name, arguments = _eager(spec, options.model)
    try:
        results = plugin.hooks.hub_validate_precision(
            name=name, optim_args=arguments, context=context
        )
        return tuple(finding for result in results for finding in result or ())
    except HubError:
        raise
    except Exception as error:  # a stranger's code
        raise PluginError(
            f"the plugin of {spec.name} fails to check the build: {type(error).__name__}: {error}",
            where="hub_validate_precision",
            fix=for_author(
                "return findings; hub_validate_precision gets arguments that are validated",
                plugin.source.distribution,
            ),
            plugin=plugin.source.distribution,
        ) from error


def _decay(spec: OptimizerSpec, arguments: BaseModel) -> dict[str, Any]:
    """Return the weight decay of decayed groups, where groups have one."""
    keys = spec.per_group & {"weight_decay"} & set(type(arguments).model_fields)
    return {key: getattr(arguments, key) for key in keys}


def _known_failures(spec: OptimizerSpec) -> list[Finding]:
    return [
        Finding(level=Level.NOTE, what=f"known failure of hub's check '{check}': {why}")
        for check, why in spec.known_failures.items()
    ]


def _context(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    groups: Iterable[PlannedGroup],
    precision: Precision,
    decay: Mapping[str, Any],
) -> BuildContext:
    return BuildContext(
        model=model,
        groups=tuple(
            ParameterGroup(
                name=group.name,
                parameters=tuple((p.name, parameters[p.name]) for p in group.parameters),
                overrides={**decay, **group.overrides},
                low_rank=group.low_rank,
            )
            for group in groups
        ),
        precision=precision,
    )


def _rates(arguments: BaseModel, groups: Iterable[PlannedGroup]) -> list[float]:
    """Return the learning rate of each group, where the optimizer has one."""
    base = getattr(arguments, "lr", None)
    rates = [group.overrides.get("lr", base) for group in groups]
    return [rate for rate in rates if rate]


@cache
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)
