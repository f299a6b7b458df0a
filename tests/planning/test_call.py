"""`hub.build`, `hub.plan` and `hub.estimate` take the same, and warn where they are called."""

import inspect

import pytest
from torch import nn

import hub
from hub.planning.call import BuildCall, EstimateCall

FUNCTIONS = [hub.build, hub.plan, hub.estimate]
NAMES = ["build", "plan", "estimate"]


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
def test_the_signature_shows_all_arguments(function):
    signature = inspect.signature(function)
    parameters = dict(signature.parameters)
    if function is hub.estimate:
        assert parameters.pop("mesh").default is None
    assert parameters == dict(inspect.signature(BuildCall).parameters)
    assert list(parameters) == [
        "name",
        "model",
        "optim_args",
        "target_modules",
        "defaults",
        "param_rules",
        "precision",
        "gradient_accumulation_steps",
        "max_grad_norm",
        "hyperparameters",
    ]
    assert signature.parameters["gradient_accumulation_steps"].default == 1
    assert signature.parameters["hyperparameters"].kind is inspect.Parameter.VAR_KEYWORD
    assert function.__annotations__["return"] == signature.return_annotation


def test_each_argument_is_described_where_it_is_taken():
    described = inspect.getdoc(hub.build)
    assert all(f"\n    {name}: " in described for name in inspect.signature(BuildCall).parameters)


@pytest.mark.parametrize("call", [BuildCall, EstimateCall])
def test_a_call_keeps_every_argument(call):
    given = {name: object() for name in inspect.signature(call).parameters}
    hyperparameters = {"lr": given.pop("hyperparameters")}
    assert vars(call(**given, **hyperparameters)) == given | {"hyperparameters": hyperparameters}


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
def test_a_missing_argument_is_named(function):
    with pytest.raises(TypeError, match=r"^missing a required argument: 'model'$"):
        function("sgd")


@pytest.mark.parametrize(
    "build",
    [
        lambda model: hub.build("sgd", model, lr=1e-9),
        lambda model: hub.create_optimizer(model, {"optim": "sgd", "learning_rate": 1e-9}),
    ],
    ids=["build", "create_optimizer"],
)
def test_a_warning_points_at_the_caller(build):
    with pytest.warns(hub.HubWarning, match="round to zero") as caught:
        build(nn.Linear(2, 2).bfloat16())
    assert [one.filename for one in caught] == [__file__]
