"""`hub schema [NAME]`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from hub.arguments.json_schema import DRAFT, arguments_schema, if_then
from hub.cli.command import complete_optimizer
from hub.errors import HubError
from hub.names import describe, list_optimizers, list_schedulers
from hub.names.layerwise_spec import has_layerwise_form, layerwise_spec
from hub.names.registry import default_registry
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hub.arguments.json_schema import Schema
    from hub.spec import OptimizerSpec, SchedulerSpec


def schema(
    name: Annotated[
        str,
        typer.Argument(
            help="An optimizer, as in `hub list`; by default the whole training configuration.",
            autocompletion=complete_optimizer,
        ),
    ] = "",
) -> None:
    """Print JSON Schema for editors: of an optimizer's arguments, or of a training configuration.

    The training configuration has the fields of `hub.TrainingConfig`, with the names, and the
    arguments of each, that are installed.
    """
    made = optimizer_schema(describe(name)) if name else config_schema()
    typer.echo(json.dumps({"$schema": DRAFT, **made}, indent=2, allow_nan=False))


def optimizer_schema(spec: OptimizerSpec) -> Schema:
    """Return the schema of a mapping with one optimizer's arguments."""
    made = {"title": spec.name, **_own(spec)}
    if Trait.MATRICES_ONLY in spec.traits:
        made["definitions"] = _definitions(_rests()) | _definitions_of_rests()
    return made


def config_schema() -> Schema:
    """Return the schema of a mapping with the fields of `hub.TrainingConfig`."""
    from hub.building.config import TrainingConfig

    made, default = arguments_schema(TrainingConfig), TrainingConfig()
    specs = list(_specs())
    schedules = [default_registry().scheduler(name) for name in list_schedulers()]
    fields = made["properties"]
    fields["optim"] |= {"enum": [spec.name for spec in specs], "default": default.optim}
    fields["lr_scheduler_type"]["enum"] = [schedule.name for schedule in schedules]
    fields["lr_scheduler_kwargs"]["anyOf"].append({"type": "string"})
    return {
        "title": "hub.TrainingConfig",
        **made,
        "allOf": [
            *_by_value("optim", default.optim, {s.name: _needs(s) for s in specs}),
            *_by_value(
                "lr_scheduler_type",
                default.lr_scheduler_type,
                {schedule.name: _needs_of_schedule(schedule) for schedule in schedules},
            ),
        ],
        "definitions": _definitions(specs)
        | _definitions_of_rests()
        | {f"schedule.{one.name}": arguments_schema(one.arguments) for one in schedules},
    }


def _own(spec: OptimizerSpec) -> Schema:
    """Return the schema of an optimizer's arguments and of those of its rest.

    None is required, because a trainer or a keyword may set it.
    """
    made = {**arguments_schema(spec.arguments), "description": spec.summary}
    made.pop("required", None)
    if Trait.MATRICES_ONLY in spec.traits:
        made["properties"]["rest"] = _rest(spec)
    return made


def _rest(spec: OptimizerSpec) -> Schema:
    """Return the schema of what trains all parameters that an optimizer leaves."""
    rests = [rest.name for rest in _rests()]
    default = default_registry().rest_of(spec).name
    places = {name: {"$ref": f"#/definitions/rest.{name}"} for name in rests}
    return {
        "type": "object",
        "description": f"The optimizer of all other parameters, {default} unless `optimizer` "
        "names another, and its arguments.",
        "properties": {"optimizer": {"enum": rests, "default": default}},
        "allOf": _by_value("optimizer", default, places),
    }


def _definitions_of_rests() -> Schema:
    return {f"rest.{spec.name}": _beside_its_name(spec) for spec in _rests()}


def _beside_its_name(spec: OptimizerSpec) -> Schema:
    """Return the schema of an optimizer's arguments in a mapping that also names it."""
    own = arguments_schema(spec.arguments)["properties"]
    place = f"{_place(spec)}/properties"
    return {
        "properties": {key: {"$ref": f"{place}/{key}"} for key in own},
        "propertyNames": {"enum": ["optimizer", "target_modules", *own]},
    }


def _by_value(key: str, default: str, then: dict[str, Schema]) -> list[Schema]:
    return [if_then(key, name, one, by_default=name == default) for name, one in then.items()]


def _needs(spec: OptimizerSpec) -> Schema:
    """Return what a training configuration with this optimizer has."""
    needs: Schema = {"properties": {"optim_args": _mapping_or_text(_place(spec))}}
    if spec.takes_targets and spec.target_modules is None:
        needs["required"] = ["optim_target_modules"]
    return needs


def _needs_of_schedule(spec: SchedulerSpec) -> Schema:
    place = f"#/definitions/schedule.{spec.name}"
    needs: Schema = {"properties": {"lr_scheduler_kwargs": _mapping_or_text(place)}}
    if any(field.is_required() for field in spec.arguments.model_fields.values()):
        needs["required"] = ["lr_scheduler_kwargs"]
    return needs


def _mapping_or_text(place: str) -> Schema:
    return {"anyOf": [{"$ref": place}, {"type": ["string", "null"]}]}


def _definitions(specs: Iterable[OptimizerSpec]) -> Schema:
    return {f"optimizer.{spec.name}": _own(spec) for spec in specs}


def _place(spec: OptimizerSpec) -> str:
    return f"#/definitions/optimizer.{spec.name}"


def _rests() -> Iterator[OptimizerSpec]:
    """Yield the optimizers that train all parameters they are given."""
    return (spec for spec in _specs() if Trait.MATRICES_ONLY not in spec.traits)


def _specs() -> Iterator[OptimizerSpec]:
    """Yield the spec of every name, those of layerwise forms too."""
    for name in list_optimizers():
        try:
            spec = describe(name)
        except HubError:  # a broken plugin, which is an error only when its name is used
            continue
        yield spec
        if has_layerwise_form(spec):
            yield layerwise_spec(spec)
