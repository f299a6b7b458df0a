"""The `optim_args` grammar, typing by schema, and where a value comes from."""

import warnings
from collections import UserDict, UserList
from contextlib import suppress
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from hub.arguments.describe import type_name
from hub.arguments.grammar import parse_arguments, read_value
from hub.arguments.resolve import resolve_arguments
from hub.errors import OptimArgsError


class Typed(BaseModel):
    rank: int = 4
    scale: Annotated[float, Field(gt=0)] = 0.25
    betas: tuple[float, float] = (0.9, 0.999)
    proj_type: Literal["std", "left", "none"] = "std"
    bits: Literal[24, 32] | None = 24
    kahan_sum: bool | None = None
    label: str = ""


def values(text):
    options = resolve_arguments("typed", Typed, optim_args=text)
    return {a.name: a.value for a in options.arguments if a.origin != "default"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  ", {}),
        ("rank=64", {"rank": 64}),
        (" rank = 64 ,scale= .1, ", {"rank": 64, "scale": 0.1}),
        ("scale=1", {"scale": 1.0}),
        ("scale=1e-4", {"scale": 1e-4}),
        ("betas=(0.9, 0.95), rank=2", {"betas": (0.9, 0.95), "rank": 2}),
        ("betas=[0.9,0.95]", {"betas": (0.9, 0.95)}),
        ("proj_type=left", {"proj_type": "left"}),
        ("proj_type='left'", {"proj_type": "left"}),
        ("proj_type=none", {"proj_type": "none"}),
        ("bits=None", {"bits": None}),
        ("bits=32", {"bits": 32}),
        ("kahan_sum=false", {"kahan_sum": False}),
        ("kahan_sum=True", {"kahan_sum": True}),
        ("kahan_sum=null", {"kahan_sum": None}),
        ('label="a, b=(c"', {"label": "a, b=(c"}),
        ("label='it\\'s, so'", {"label": "it's, so"}),
        ("label=64", {"label": "64"}),
        ("label=true", {"label": "true"}),
        ("label=/path/to-file_1.txt", {"label": "/path/to-file_1.txt"}),
    ],
)
def test_text_is_typed_by_the_schema(text, expected):
    assert values(text) == expected


@pytest.mark.parametrize(
    "mapping",
    [
        {"rank": "64", "scale": "1e-4", "kahan_sum": "false", "betas": "(0.9, 0.95)"},
        {"rank": 64, "scale": 1e-4, "kahan_sum": False, "betas": [0.9, 0.95]},
    ],
    ids=["as yaml leaves it", "typed"],
)
def test_a_mapping_is_read_like_text(mapping):
    expected = {"rank": 64, "scale": 1e-4, "kahan_sum": False, "betas": (0.9, 0.95)}
    assert values(mapping) == expected


@pytest.mark.parametrize(
    "mapping",
    [
        {"rank": 64.0},
        {"rank": True},
        {"rank": "64.5"},
        {"kahan_sum": 0},
        {"betas": 0.9},
        {"label": 3},
    ],
    ids=str,
)
def test_other_types_are_not_guessed(mapping):
    with pytest.raises(OptimArgsError, match=next(iter(mapping))):
        values(mapping)


def test_each_value_has_its_origin():
    options = resolve_arguments(
        "typed",
        Typed,
        optim_args="rank=8",
        hyperparameters={"scale": 0.5, "rank": 8},
        defaults={"betas": (0.9, 0.95), "rank": 1, "no_such_argument": 3},
    )
    origins = {a.name: (a.value, a.origin) for a in options.arguments}
    assert origins["rank"] == (8, "keyword")
    assert origins["scale"] == (0.5, "keyword")
    assert origins["betas"] == ((0.9, 0.95), "trainer")
    assert origins["bits"] == (24, "default")


@pytest.mark.parametrize(
    "default", [{"betas": 0.9}, {"betas": (0.9, 0.95, 0.99)}, {"betas": (0.9,)}], ids=str
)
def test_a_trainers_default_of_another_shape_is_ignored(default):
    options = resolve_arguments("typed", Typed, defaults=default)
    assert {a.origin for a in options.arguments} == {"default"}


def test_a_trainers_default_is_validated_too():
    with pytest.raises(OptimArgsError, match="from trainer"):
        resolve_arguments("typed", Typed, defaults={"scale": "fast"})


def test_the_place_in_the_text_is_marked():
    with pytest.raises(OptimArgsError) as raised:
        parse_arguments("rank=64, scale")
    mark = str(raised.value).splitlines()[1:3]
    assert mark[0][mark[1].index("^") :] == "scale"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("rank", "int"),
        ("scale", "float > 0"),
        ("betas", "tuple[float, float]"),
        ("proj_type", "'std' | 'left' | 'none'"),
        ("bits", "24 | 32 | None"),
        ("kahan_sum", "bool | None"),
    ],
)
def test_types_are_written_for_people(name, written):
    assert type_name(Typed.model_fields[name]) == written


PIECES = st.one_of(
    st.sampled_from(
        ["rank", "scale", "betas", "label", "=", ",", "(", ")", "[", "]", "{", "'", '"', "\\", " "]
    ),
    st.sampled_from(
        ["64", "0in", "1e999", "9" * 5000, "0x", "\\d", "lambda", "None", "b'x'", "1j"]
    ),
    st.text(max_size=4),
)


@pytest.mark.parametrize("betas", [[0.8, 0.9], UserList([0.8, 0.9]), UserList(["0.8", "0.9"])])
def test_any_sequence_is_a_tuple(betas):
    """A configuration's lists and mappings may be of classes of its own (OmegaConf's are)."""
    assert values(UserDict(betas=betas)) == {"betas": (0.8, 0.9)}


@settings(max_examples=2000, deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=20).map("".join)))
def test_any_text_parses_or_is_refused(text):
    for read in (parse_arguments, values):
        try:
            read(text)
        except OptimArgsError as error:
            assert error.what  # noqa: PT017 - either outcome is right


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rank": st.integers(),
            "scale": st.floats(min_value=1e-300, max_value=1e300),
            "betas": st.tuples(st.floats(0, 1), st.floats(0, 1)),
            "label": st.text().filter(lambda s: "\0" not in s),
            "kahan_sum": st.none() | st.booleans(),
        },
    )
)
def test_what_python_writes_is_read_back(arguments):
    text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    assert values(text) == arguments


@pytest.mark.parametrize("depth", [10, 100, 100_000])
def test_deep_nesting_does_not_crash(depth):
    try:
        parse_arguments("rank=" + "(" * depth + ")" * depth)
    except OptimArgsError as error:
        assert error.where  # noqa: PT017 - either outcome is right


ODD = ["0in", "1or", "0xfor", "1.else", "1jnot", "'\\d'", "'\\777'", '"a\\q"', "b'\\d'", "1if"]


@pytest.mark.parametrize("value", [*ODD, *(f"({value}, 1)" for value in ODD)])
def test_python_is_never_asked_what_it_would_warn_of(value):
    """Where its warnings go is up to filters that all threads share."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with suppress(ValueError):
            assert read_value(value) == value
    assert not caught
