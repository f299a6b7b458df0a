"""Make a spec from a row of plain data, which says what a class takes and was found to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from hub.arguments import Arguments, PlainRate, usual
from hub.spec import Contrast, OptimizerSpec, Trait

if TYPE_CHECKING:
    from pydantic import BaseModel

Row = Mapping[str, Any]
TYPES: Mapping[str, type] = {"bool": bool, "int": int, "float": float, "str": str}


def spec_of(row: Row) -> OptimizerSpec:
    """Return the spec that a row stands for; its arguments class is made when first asked for."""
    return OptimizerSpec(
        name=row["name"],
        summary=row["summary"],
        factory=row["class"],
        arguments=_arguments(row["class"], row["arguments"]),
        traits=frozenset(map(Trait, row["traits"])),
        precisions=frozenset(row["precisions"]),
        per_group=frozenset(row["per_group"]),
        example_arguments=row["example_arguments"],
        contrasts={key: tuple(map(_contrast, found)) for key, found in row["contrasts"].items()},
        without_effect=row["without_effect"],
        step_counters=frozenset(row["step_counters"]),
        why_not_layerwise=row["why_not_layerwise"],
        why_not_sharded=row["why_not_sharded"],
        package=row["package"],
        license=row["license"],
        paper=row["paper"],
        homepage=row["homepage"],
        notes=tuple(row["notes"]),
    )


def _contrast(found: Row) -> Contrast:
    return Contrast(base=_values(found["base"]), other=_values(found["other"]))


def _values(found: Row) -> dict[str, Any]:
    """Return arguments as they are in Python, where JSON has lists for tuples."""
    return {key: _value(value) for key, value in found.items()}


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _arguments(cls: str, rows: Row) -> type[BaseModel]:
    fields: dict[str, Any] = {
        key: (
            _annotation_with_range(cls, key, row),
            Field(
                description=row["description"],
                **({} if "default" not in row else {"default": _value(row["default"])}),
            ),
        )
        for key, row in rows.items()
    }
    name = cls.partition(":")[2] + "Arguments"
    return create_model(name, __base__=Arguments, __doc__=f"Arguments of `{cls}`.", **fields)


def _annotation_with_range(cls: str, key: str, row: Row) -> Any:
    """Return the type of an argument, and in which range it is tuned."""
    if key == "lr" and cls.endswith((":SGDP", ":SGDW")):
        return PlainRate
    return usual(key, _annotation(row), _value(row.get("default")))


def _annotation(row: Row) -> Any:
    """Return the type of an argument, within its bounds."""
    if "choices" in row:
        found: Any = Literal[tuple(row["choices"])]
    elif isinstance(row["type"], list):
        parts = map(_bounded, row["type"], row.get("bounds") or [{}] * len(row["type"]))
        found = tuple.__class_getitem__(tuple(parts))
    else:
        found = _bounded(row["type"], row.get("bounds", {}))
    return found | None if row.get("optional") else found


def _bounded(kind: str, bounds: Row) -> Any:
    return Annotated[TYPES[kind], Field(**bounds)] if bounds else TYPES[kind]
