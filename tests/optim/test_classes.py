"""What `hub.optim.NAME` shows to whoever looks at it."""

import copy
import inspect
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import hub
from hub.building.from_parameters import OPTIONS
from hub.errors import HubError, OptimArgsError, UnknownOptimizerError, UnsupportedError
from hub.spec import Trait

NAMES = hub.list_optimizers()
IMPORTS = """
import sys
import hub
assert "torch" not in sys.modules
names = dir(hub.optim)
assert "stable_adamw" in names and "stable_adamw_layerwise" in names
assert "apollo_adamw" in names and "lomo_layerwise" not in names
assert "torch" not in sys.modules
hub.optim.stable_adamw
assert "torch" in sys.modules and "optimi" not in sys.modules
"""


def test_nothing_is_imported_before_a_name_is_used():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", [name for name in dir(hub.optim) if not name.startswith("__")])
def test_it_is_a_class(name):
    cls, spec = getattr(hub.optim, name), hub.describe(name)
    assert isinstance(cls, type)
    assert issubclass(cls, torch.optim.Optimizer)
    assert (cls.__module__, cls.__name__, cls.__qualname__) == ("hub.optim", name, name)
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert copy.deepcopy(cls) is cls
    own = inspect.signature(cls).parameters
    assert next(iter(own)) == "params"
    for key, field in spec.arguments.model_fields.items():
        expected = inspect.Parameter.empty if field.is_required() else field.default
        assert own[key].default == expected
        assert own[key].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"    {key}: " in cls.__doc__ or not field.description
    assert ("target_modules" in own) == spec.takes_targets
    assert ("rest" in own) == (Trait.MATRICES_ONLY in spec.traits)
    assert own.keys() - {"params", "target_modules", "rest"} == {
        *spec.arguments.model_fields,
        *OPTIONS,
    } - {"target_modules"}
    theirs = list(inspect.signature(cls.__init__).parameters.values())
    assert theirs[1:] == list(own.values())


def test_every_installed_name_is_there():
    assert set(NAMES) < set(dir(hub.optim))
    assert "optim" in dir(hub)


def test_types_and_documentation():
    own = inspect.signature(hub.optim.stable_adamw).parameters
    assert own["lr"].annotation is float
    assert own["betas"].annotation == tuple[float, float]
    assert own["foreach"].annotation == bool | None
    assert own["precision"].annotation == str | None
    assert hub.optim.stable_adamw.__doc__.startswith(hub.describe("stable_adamw").summary)


def test_an_instance_is_of_both_classes():
    model = nn.Linear(4, 4)
    optimizer = hub.optim.stable_adamw(model.parameters())
    assert type(optimizer) is type(hub.build("stable_adamw", nn.Linear(4, 4)))
    assert isinstance(optimizer, hub.optim.stable_adamw)
    assert not isinstance(optimizer, hub.optim.sgd)
    assert not isinstance(model, hub.optim.sgd)
    assert not isinstance(torch.optim.SGD(model.parameters()), hub.optim.sgd)


@pytest.mark.parametrize(
    ("name", "fix"),
    [("stable_adam", "did you mean stable_adamw"), ("lomo_layerwise", "use 'lomo'")],
)
def test_a_missing_name_is_an_attribute_error_with_the_fix(name, fix):
    with pytest.raises(AttributeError) as raised:
        getattr(hub.optim, name)
    assert isinstance(raised.value, UnknownOptimizerError)
    assert fix in raised.value.fix
    assert not hasattr(hub.optim, name)


@pytest.mark.parametrize("name", ["__path__", "_private", "torch.optim:NAdam", ""])
def test_what_cannot_be_a_name_is_a_plain_attribute_error(name):
    with pytest.raises(AttributeError) as raised:
        getattr(hub.optim, name)
    assert not isinstance(raised.value, HubError)


def test_it_cannot_be_extended():
    with pytest.raises(UnsupportedError, match=r"hub\.optim\.sgd builds an instance"):
        type("Mine", (hub.optim.sgd,), {})


def test_importing_a_missing_name():
    with pytest.raises(ImportError):
        exec("from hub.optim import nothing_of_this_name")


@pytest.mark.parametrize("argument", ["model", "name", "optim_args", "defaults", "learning_rate"])
def test_unknown_arguments(argument):
    with pytest.raises(OptimArgsError, match=f"sgd has no argument '{argument}'"):
        hub.optim.sgd(nn.Linear(2, 2).parameters(), **{argument: 1})


def test_a_warning_points_at_the_call():
    model = nn.Linear(64, 64).to(torch.bfloat16)
    with pytest.warns(hub.HubWarning, match="round to zero") as caught:
        hub.optim.adamw_torch(model.parameters(), lr=1e-7)
    assert [each.filename for each in caught] == [__file__]
