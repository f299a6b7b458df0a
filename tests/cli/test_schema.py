"""`hub schema`: draft 7, and the same verdicts as hub's own."""

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml
from jsonschema import Draft7Validator
from pydantic import Field
from typer.testing import CliRunner

import hub
from hub.arguments import Arguments
from hub.arguments.json_schema import arguments_schema
from hub.cli import app
from hub.cli.schema import config_schema, optimizer_schema
from hub.names.layerwise_spec import LAYERWISE_SUFFIX, has_layerwise_form
from hub.names.registry import default_registry
from hub.spec import Trait

OPTIMIZERS, SCHEDULES = hub.list_optimizers(), hub.list_schedulers()
LAYERWISE = [
    name + LAYERWISE_SUFFIX for name in OPTIMIZERS if has_layerwise_form(hub.describe(name))
]


def printed(*arguments):
    result = CliRunner().invoke(app, ["schema", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.fixture(scope="module")
def config():
    """Return what says whether a text of YAML 1.2 is a training configuration."""
    checking = Draft7Validator(printed())
    return lambda text: checking.is_valid(yaml.safe_load(text))


def keywords(schema):
    """Yield the keywords of a schema and of those in it."""
    for key, value in schema.items():
        yield key
        inner = {"properties": dict.values, "definitions": dict.values}.get(key, lambda one: [one])
        if key in ("const", "default", "enum", "required", "x-search"):
            continue
        for one in inner(value):
            for each in one if isinstance(one, list) else [one]:
                if isinstance(each, dict):
                    yield from keywords(each)


def test_only_keywords_of_draft_7(config):
    made = printed()
    Draft7Validator.check_schema(made)
    known = set(Draft7Validator.META_SCHEMA["properties"])
    assert set(keywords(made)) <= known | {"x-search"}  # others may be added, and are ignored
    assert "prefixItems" not in known  # else this says nothing
    assert {"items", "additionalItems", "if", "then"} <= set(keywords(made))


def plain_value(value):
    """Return a default as a file has it."""
    return [plain_value(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", [*OPTIMIZERS, *LAYERWISE])
def test_every_optimizers_arguments(name):
    spec = hub.describe(name)
    made = optimizer_schema(spec)
    Draft7Validator.check_schema(made)
    checking = Draft7Validator(made)
    fields = spec.arguments.model_fields
    assert made["title"] == name
    assert checking.is_valid({})
    assert checking.is_valid(json.loads(json.dumps(dict(spec.example_arguments))))
    plain = {key: plain_value(field.default) for key, field in fields.items()}
    assert [error.message for error in checking.iter_errors(plain)] == []
    assert not checking.is_valid({"learning_rate_": 1})
    assert made["properties"].keys() - fields.keys() <= {"rest"}
    for key in made["properties"]:
        assert not checking.is_valid({f"{key}x": None})
        assert not checking.is_valid({key: [[{"a": []}]]}), key
    assert checking.is_valid({"lr": 1e-3})
    assert not checking.is_valid({"lr": "0.1e"})
    assert not checking.is_valid({"lr": True})
    assert not checking.is_valid({"lr": -1})


@pytest.mark.parametrize("name", [*OPTIMIZERS, *LAYERWISE])
def test_every_optimizer_in_a_configuration(name, config):
    spec = hub.describe(name)
    targets = "optim_target_modules: all-linear" if Trait.LOW_RANK in spec.traits else ""
    text = f"optim: {name}\n{targets}\noptim_args: "
    assert config(text + "{lr: 0.1}")
    assert config(text + "lr=0.1, anything=as_text")
    assert config(text + "null")
    assert not config(text + "{lrr: 0.1}")
    assert not config(text + "{lr: fast}")
    assert not config(text + "3")
    assert config(f"optim: {name}") is not bool(targets)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_in_a_configuration(name, config):
    spec = default_registry().scheduler(name)
    text = f"lr_scheduler_type: {name}\nlr_scheduler_kwargs: "
    given = json.dumps(dict(spec.example_arguments))
    assert config(text + given)
    assert config(text + "num_cycles=2")
    assert not config(text + "{num_cyclesx: 2}")
    required = any(field.is_required() for field in spec.arguments.model_fields.values())
    assert config(f"lr_scheduler_type: {name}") is not required


@pytest.mark.parametrize(
    "text",
    [
        "optim: adamw_toch",
        "optim_arg: {lr: 0.1}",
        "optim: adamw_torch\noptim_args: {rank: 4}",
        "optim_args: {betas: [0.9]}",
        "optim_args: {betas: [0.9, 0.95, 0.99]}",
        "optim_args: {betas: [0.9, 1.5]}",
        "lr_scheduler_type: cosin",
        "learning_rate: -1",
        "learning_rate: fast",
        "warmup_steps: true",
        "bf16: 1",
    ],
)
def test_what_hub_refuses_is_marked(text, config):
    assert not config(text)
    with pytest.raises(hub.OptimArgsError):
        raise_of(yaml.safe_load(text))


def raise_of(values):
    """Raise what a build and a schedule from these values would."""
    model = __import__("torch").nn.Linear(2, 2)
    try:
        optimizer = hub.create_optimizer(model, values)
        hub.create_scheduler(optimizer, values, 10)
    except hub.UnknownOptimizerError as error:
        raise hub.OptimArgsError(error.what) from error


@pytest.mark.parametrize(
    "text",
    [
        "",
        "optim_args: {betas: [0.9, 0.95]}\nlearning_rate: 1\nmax_grad_norm: null",
        "optim: galore_adamw\noptim_target_modules: [attn, mlp]\noptim_args: rank=4, scale=0.1",
        "optim: lomo\noptim_args: {clipping: previous_norm}\neval_strategy: steps",
        "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 0.5}\nwarmup_steps: 0.1",
    ],
)
def test_what_hub_accepts_is_not_marked(text, config):
    values = yaml.safe_load(text) or {}
    assert config(text or "{}")
    assert hub.TrainingConfig.load(values).model_fields_set == set(values)


def matrices_only():
    """Return an optimizer that trains only matrices."""
    spec = hub.describe("sgd")
    return dataclasses.replace(spec, traits=spec.traits | {Trait.MATRICES_ONLY})


@pytest.mark.parametrize(
    ("rest", "valid"),
    [
        ({"lr": 1e-3}, True),
        ({"amsgrad": True}, True),
        ({"momentum": 0.9}, False),
        ({"optimizer": "sgd", "momentum": 0.9}, True),
        ({"optimizer": "sgd", "betas": [0.9, 0.95]}, False),
        ({"optimizer": "sdg"}, False),
        ({"lr": "fast"}, False),
        ("lr=1", False),
    ],
)
def test_the_rest_of_what_trains_only_matrices(rest, valid):
    made = optimizer_schema(matrices_only())
    Draft7Validator.check_schema(made)
    assert Draft7Validator(made).is_valid({"momentum": 0.5, "rest": rest}) is valid
    assert not Draft7Validator(optimizer_schema(hub.describe("sgd"))).is_valid({"rest": rest})


@pytest.mark.parametrize("name", ["muon", "muon_layerwise"])
def test_the_default_rest_is_the_one_that_builds(name):
    spec = hub.describe(name)
    rest = optimizer_schema(spec)["properties"]["rest"]["properties"]["optimizer"]
    assert rest["default"] == default_registry().rest_of(spec).name


def test_references_are_resolved_and_types_without_a_form_left_out():
    made = arguments_schema(hub.describe("grokadamw").arguments)
    assert "$ref" not in set(keywords(made))
    assert "$defs" not in set(keywords(made))


def test_what_json_cannot_say_is_left_out():
    class Endless(Arguments):
        rate: float = math.inf
        rates: tuple[float, ...] = (1.0, math.inf)
        below: float = Field(default=1.0, lt=math.inf)
        function: Callable[[], None] | None = None

    made = arguments_schema(Endless)
    assert made["properties"] == {
        "rate": {"type": "number"},
        "rates": {"type": "array", "items": {"type": "number"}},
        "below": {"type": "number", "default": 1.0},
    }


def test_the_default_of_the_configuration():
    made = config_schema()
    assert made["properties"]["optim"]["default"] == hub.TrainingConfig().optim
    assert not Draft7Validator(made).is_valid({"optim_args": {"rank": 4}})


def test_it_imports_no_torch():
    program = "import sys; from hub.cli import app; app(['schema'], standalone_mode=False)"
    program += "; print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == ["False"]


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_layerwise"])
def test_the_command_prints_an_optimizers(name):
    made = optimizer_schema(hub.describe(name))
    draft = "http://json-schema.org/draft-07/schema#"
    assert printed(name) == json.loads(json.dumps({"$schema": draft, **made}))


def test_an_unknown_name_is_an_error():
    result = CliRunner().invoke(app, ["schema", "adamw_toch"])
    assert result.exit_code == 2
    assert "did you mean adamw_torch" in result.output
