"""`hub.plan` foretells `hub.build`: more than 2,000 generated inputs, over every installed name."""

import json
import math
import random
import types
import typing
import warnings
import zlib
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from helpers.split import as_split, pretend
from pydantic import ValidationError
from torch import nn
from torch.nn.utils import parametrizations

import hub
from hub.spec import MODES, Trait

INPUTS = 54
"""For each of the installed names: half of them for the layerwise form."""
ESTIMATED = 12
"""Every so many inputs are estimated too."""


class OwnLinear(nn.Module):
    """A linear layer that is no `nn.Linear`."""

    def __init__(self, rows, columns):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns))


class Experts(nn.Module):
    """The experts of a layer in one parameter, as Transformers has them."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.up_proj = nn.Parameter(torch.randn(4, 16, 8))


def linear():
    return nn.Sequential(nn.Linear(24, 40), nn.LayerNorm(40), nn.Linear(40, 24), nn.Linear(24, 3))


def shared():
    model = nn.Sequential(nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 12, bias=False))
    model[2].weight = model[0].weight
    return model


def partly_frozen():
    model = linear()
    model[0].requires_grad_(False)
    return model


def sharded():
    """A model on the first of 16 ranks, until the end of this input."""
    if not dist.is_initialized():
        pretend(16)
    return as_split(linear(), (16,))


def of_two_dtypes():
    model = linear()
    model[2].to(torch.bfloat16)
    return model


def held():
    """A model that another optimizer goes on stepping."""
    model = linear()
    model.holder = [hub.build("lomo", model[2], lr=0.1)]
    return model


MODELS = {
    "linear": linear,
    "transposed": lambda: nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 96, bias=False)),
    "large": lambda: nn.Sequential(nn.Embedding(65, 64), nn.Linear(64, 65)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 8)),
    "channels last": lambda: nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last),
    "sparse": lambda: nn.Sequential(nn.Embedding(12, 8, sparse=True), nn.Linear(8, 8)),
    "shared": shared,
    "experts": lambda: nn.Sequential(nn.Linear(8, 8), Experts()),
    "weight_norm": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 8)
    ),
    "spectral_norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(8, 8))),
    "old weight_norm": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 8))),
    "own linear": lambda: nn.Sequential(OwnLinear(8, 8), nn.LayerNorm(8)),
    "odd": lambda: nn.ParameterList([torch.zeros(()), torch.zeros(0, 3), torch.zeros(2, 1, 2, 2)]),
    "complex": lambda: nn.ParameterList([torch.zeros(2, 2, dtype=torch.complex64)]),
    "of two dtypes": of_two_dtypes,
    "partly frozen": partly_frozen,
    "frozen": lambda: linear().requires_grad_(False),
    "empty": nn.ReLU,
    "meta": lambda: linear().to("meta"),
    "sharded": sharded,
    "held": held,
}
DTYPES = [torch.float32] * 5 + [torch.bfloat16] * 3 + [torch.float16, torch.float64]
TARGETS = [*["all-linear"] * 6, ["all-linear"], "0", "0", ["0", "2"], r"\d", "gate", "nothing", []]
PRECISIONS = [*MODES, "16-mixed", "bf16-true", "half"]
PATTERNS = ["0", r"0\.weight", ".*weight.*", r".*\.bias", "nothing", "("]
BY_NAME = {
    "lr": [1e-3, 0.1, 1.0, 0.0, 1e-9, -1.0, None, "fast", True, math.inf],
    "rank": [1, 4, 8, 9, 24, 64, 128, 0, 2.5],
    "grokking_signal_fns": [None, 3],
}
BY_TYPE = {
    bool: [True, False, True, False, 1, "maybe"],
    int: [1, 2, 64, 256, 4096, 0, -1, 2.5],
    float: [0.5, 0.9, 1e-8, 0.0, 1.0, -0.8, 128.0, -1, math.nan, "much"],
    tuple: [(0.9, 0.99), (0.0, 0.5), (1e-30, 1e-3), (0.9, 0.99, 0.999), (0.9, 1.0), (0.9,), 0.9],
    type(None): [None],
}


def kinds(annotation):
    """Yield the plain types, and the values of literals, that an annotation is made of."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        yield from ([value, value, "bogus"] for value in typing.get_args(annotation))
    elif origin is typing.Annotated:
        yield from kinds(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            yield from kinds(option)
    else:
        yield BY_TYPE.get(origin or annotation, [None])


def value_of(key, spec, some):
    """Return a value that an argument may have by itself, but for one in twenty."""
    annotation = spec.arguments.model_fields[key].annotation
    values = [*BY_NAME.get(key, ()), *(v for pool in kinds(annotation) for v in pool)]
    fitting = [value for value in values if some.random() < 0.05 or fits(spec, key, value)]
    return some.choice(fitting or values)


def fits(spec, key, value):
    try:
        spec.arguments.model_validate({key: value}, strict=True)
    except ValidationError:
        return False
    return True


def arguments_of(spec, some, most):
    keys = some.sample(sorted(spec.arguments.model_fields), some.randint(0, most))
    return {key: value_of(key, spec, some) for key in keys}


def rules_of(spec, some):
    keys = [*sorted(spec.per_group), "foreach"]
    return {
        pattern: {"lr_scale": 0.1} if some.random() < 0.3 else {key: value_of(key, spec, some)}
        for pattern in some.sample(PATTERNS, some.randint(1, 2))
        if (key := some.choice([key for key in keys if key in spec.arguments.model_fields]))
    }


def call_of(spec, some):
    """Return arguments of `hub.build` that are mostly right, and now and then are not."""
    arguments = arguments_of(spec, some, 3)
    call = {"optim_args": arguments} if some.random() < 0.3 else arguments
    if some.random() < 0.2:
        call["defaults"] = arguments_of(spec, some, 3)
    if some.random() < 0.2:
        call["param_rules"] = rules_of(spec, some)
    if some.random() < (0.95 if Trait.LOW_RANK in spec.traits else 0.02):
        call["target_modules"] = some.choice(TARGETS)
    if some.random() < 0.3:
        call["precision"] = some.choice(PRECISIONS)
    if some.random() < 0.2:
        call["gradient_accumulation_steps"] = some.choice([1, 2, 4, 4, 4, 0])
    if some.random() < 0.2:
        call["max_grad_norm"] = some.choice([1.0, 0.5, 0.1, 2, -1.0])
        if Trait.STEPS_IN_BACKWARD in spec.traits:
            call["clipping"] = some.choice(["previous_norm", "exact", "per_parameter"])
    return call


def model_of(some):
    kind = some.choice([*MODELS, *["linear", "transposed", "large", "meta"] * 4])
    model = MODELS[kind]()
    dtype = some.choice(DTYPES)
    return model if kind in ("of two dtypes", "complex", "held", "sharded") else model.to(dtype)


def outcome(function, *arguments, **more):
    """Return what a function returns, or the error of hub that it raises; no other may pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*arguments, **more)
        except hub.HubError as error:
            return error


def same(error, other):
    return (type(error), str(error)) == (type(other), str(other))


def expected(planned, *, of_any_model=False):
    """Return the error that a plan, or its failure, foretells, if any."""
    if isinstance(planned, hub.HubError):
        return planned
    if of_any_model:
        kept = tuple(finding for finding in planned.findings if finding.where != "model")
        planned = replace(planned, findings=kept)
    return planned.refusal


def check(name, model, call):
    """Hold `build` to what `plan` says, and return which of the three it was."""
    planned = outcome(hub.plan, name, model, **call)
    built = outcome(hub.build, name, model, **call)
    error = expected(planned)
    if error is None:
        assert isinstance(built, torch.optim.Optimizer), built
        assert not planned.refused
        return "built"
    assert same(built, error), (built, error)
    if planned is error:
        return "raised"
    assert planned.refused
    assert hub.Plan.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned
    return "refused"


def check_estimate(name, model, call):
    planned, estimated = (outcome(f, name, model, **call) for f in (hub.plan, hub.estimate))
    error = expected(planned, of_any_model=True)
    if error is None:
        is_told = isinstance(estimated, hub.UnsupportedError) and "estimated" in estimated.what
        assert isinstance(estimated, hub.Estimate) or is_told, estimated
    else:
        assert same(estimated, error), (estimated, error)


@pytest.mark.parametrize("name", hub.list_optimizers())
def test_build_raises_what_the_plan_says_and_nothing_else(name, monkeypatch):
    # torchao compiles its step for every shape, which an estimate takes.
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    some = random.Random(zlib.crc32(name.encode()))
    outcomes = Counter()
    for number in range(INPUTS):
        form = f"{name}_layerwise" if number % 2 else name
        spec = outcome(hub.describe, form)
        if isinstance(spec, hub.HubError):  # has no such form
            assert same(spec, outcome(hub.plan, form, linear()))
            form, spec = name, hub.describe(name)
        model, call = model_of(some), call_of(spec, some)
        try:
            outcomes[check(form, model, call)] += 1
            if number % ESTIMATED == 0:
                check_estimate(form, model_of(some), call)
        except Exception as error:
            error.add_note(f"{form}, {call}, {model}")
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
    assert outcomes["built"] > 5, outcomes
    assert outcomes["refused"] > 1, outcomes


def test_there_are_two_thousand_inputs():
    assert INPUTS * len(hub.list_optimizers()) > 2000
