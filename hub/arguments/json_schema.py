"""JSON Schema of arguments, in draft 7: what yaml-language-server and other editors read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticOmit, to_jsonable_python

from hub.arguments.search import resolved

if TYPE_CHECKING:
    from pydantic import BaseModel

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"
_DATA = frozenset({"const", "default", "enum", "examples", "required"})
"""The keywords whose value is not a schema."""
_LEFT_OUT = frozenset({"$defs", "title"})


def arguments_schema(arguments: type[BaseModel]) -> Schema:
    """Return the schema of a mapping with an optimizer's or a schedule's arguments.

    It leaves out what a file cannot have, such as functions, and what relates several arguments,
    which JSON Schema of pydantic cannot express.

    Args:
        arguments: A model of arguments. Other keys than its fields are refused.
    """
    schema = resolved(arguments.model_json_schema(schema_generator=_Generator), None)
    return {**_draft_7(schema, schema.get("$defs", {})), "additionalProperties": False}


def if_then(key: str, value: str, then: Schema, *, by_default: bool = False) -> Schema:
    """Return a schema that applies where a property has a value.

    Args:
        key: The property.
        value: Its value.
        then: What then applies.
        by_default: Whether it also applies where the property is missing.
    """
    condition: Schema = {"properties": {key: {"const": value}}}
    return {"if": condition if by_default else {**condition, "required": [key]}, "then": then}


class _Generator(GenerateJsonSchema):
    """Pydantic's, without titles and without what a file cannot have."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's
        """Leave out titles, which only repeat the names."""
        return False

    def encode_default(self, dft: Any) -> Any:
        """Return a default as JSON has it, with inf as it is."""
        return to_jsonable_python(dft, inf_nan_mode="constants")

    def default_schema(self, schema: Any) -> Schema:
        """Write the ranges to search in as numbers, where they are factors on the default."""
        return cast("Schema", resolved(super().default_schema(schema), schema.get("default")))

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> NoReturn:  # noqa: ARG002
        """Leave out an argument, or one of its types."""
        raise PydanticOmit


def _draft_7(schema: Any, models: Schema) -> Any:
    """Return what pydantic (2.14) writes in draft 2020-12 as draft 7 has it, without references."""
    if isinstance(schema, list):
        return [_draft_7(item, models) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found: Schema = {}
    for key, value in schema.items():
        if key == "$ref":
            found |= _draft_7(models[value.removeprefix("#/$defs/")], models)
        elif key == "prefixItems":
            found |= {"items": _draft_7(value, models), "additionalItems": False}
        elif key == "properties":
            found[key] = {name: _draft_7(one, models) for name, one in value.items()}
        elif key == "description":
            found[key] = " ".join(value.split())
        elif key not in _LEFT_OUT and not _is_infinite(value):
            found[key] = value if key in _DATA else _draft_7(value, models)
    return found


def _is_infinite(value: Any) -> bool:
    """Whether a default or a bound has no form in JSON."""
    if isinstance(value, list):
        return any(_is_infinite(item) for item in value)
    return isinstance(value, float) and not math.isfinite(value)
