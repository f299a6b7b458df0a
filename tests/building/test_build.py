"""A hub-built optimizer is the class built by hand, and building leaves no trace."""

import json

import pytest
import torch
from helpers.models import train
from torch.utils._python_dispatch import TorchDispatchMode

import hub
from hub.testing import Subject
from hub.testing.comparing import assert_same

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLASSES = {
    "adamw_torch": (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.8, 0.9)}),
    "adamw_torch-foreach": (torch.optim.AdamW, {"lr": 1e-2, "foreach": True, "amsgrad": True}),
    "adamw_torch_fused": (torch.optim.AdamW, {"lr": 1e-2, "fused": True}),
    "sgd": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adagrad": (torch.optim.Adagrad, {"lr": 1e-2, "lr_decay": 0.1, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-2, "momentum": 0.5, "centered": True}),
}


def by_hand(model, cls, arguments):
    """Group as `tests/groups/test_split.py` says the model splits."""
    undecayed = lambda name, p: p.ndim < 2 or "norm" in name  # noqa: E731
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return cls(
        [
            {"params": [p for name, p in named if not undecayed(name, p)]},
            {"params": [p for name, p in named if undecayed(name, p)], "weight_decay": 0.0},
        ],
        **arguments,
    )


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("case", CLASSES)
def test_trains_like_the_class_built_by_hand(case, dtype, make_model):
    cls, arguments = CLASSES[case]
    name = case.partition("-")[0]
    ours, theirs = make_model().to(dtype), make_model().to(dtype)
    optimizer = hub.build(name, ours, **arguments)
    assert type(optimizer) is cls
    train(ours, optimizer, 5)
    train(theirs, by_hand(theirs, cls, arguments), 5)
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", hub.list_optimizers())
def test_defaults_are_those_of_the_class(name):
    """Each argument that the class has too has its default, unless the notes name it.

    `hub.Adafactor` has the defaults of its documentation, and the name those of the Trainer.
    """
    import inspect

    spec = hub.describe(name)
    cls = type(Subject(name).start()[1])
    while cls.__module__.startswith("hub_"):
        cls = cls.__mro__[1] if "hub" not in cls.__mro__[1].__module__ else cls.__mro__[2]
    parameters = inspect.signature(cls).parameters
    notes = " ".join(spec.notes)
    for key, field in spec.arguments.model_fields.items():
        if key in parameters and field.default != parameters[key].default:
            assert name in {"adamw_torch_fused", "adafactor"} or key in notes, key


@pytest.mark.parametrize("name", hub.list_optimizers())
def test_a_plan_is_plain_data(name):
    subject = Subject(name)
    how = {"clipping": "exact"} if subject.in_backward else {}
    optimizer = subject.start(max_grad_norm=1.0, **how)[1]
    plan = optimizer.hub_plan
    assert hub.Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.optimizer in str(plan)
    for group in plan.groups:
        assert group.name in str(plan)
    assert [group.name for group in plan.groups] == [g["name"] for g in optimizer.param_groups]


def test_a_plan_of_the_meta_model_equals_that_of_the_real_one_but_for_the_device(make_model):
    model = make_model()
    plan = hub.plan("galore_adamw", model, target_modules="mlp")
    with torch.device("meta"):
        meta = hub.plan("galore_adamw", make_model(), target_modules="mlp")
    assert (plan.groups, plan.arguments, plan.target_modules) == (
        meta.groups,
        meta.arguments,
        meta.target_modules,
    )


def test_max_grad_norm_clips_before_the_step(make_model):
    ours, theirs = make_model(), make_model()
    optimizer = hub.build("sgd", ours, lr=1.0, max_grad_norm=0.01)
    reference = by_hand(theirs, torch.optim.SGD, {"lr": 1.0})
    for model, step in ((ours, optimizer.step), (theirs, reference.step)):
        model(torch.arange(16).view(2, 8)).square().sum().backward()
        if model is theirs:  # by the order of the groups, in which hub adds up too
            trained = [p for group in reference.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, 0.01)
        step()
    assert_same(ours, theirs)


def test_max_grad_norm_refuses_a_closure_and_can_be_detached(model):
    optimizer = hub.build("sgd", model, max_grad_norm=1.0)
    with pytest.raises(hub.UnsupportedError, match="closure"):
        optimizer.step(lambda: 0.0)
    hub.detach(optimizer)
    assert optimizer.step(lambda: 0.0) == 0.0


def test_trainer_defaults_are_used_where_there_is_such_an_argument(model):
    defaults = {"lr": 0.5, "betas": (0.8, 0.9), "eps": 1e-7, "weight_decay": 0.3}
    sgd = hub.build("sgd", model, defaults=defaults, lr=0.1)
    assert sgd.param_groups[0]["lr"] == 0.1
    assert sgd.param_groups[0]["weight_decay"] == 0.3
    origins = {a.name: a.origin for a in sgd.hub_plan.arguments}
    assert origins["lr"] == "keyword"
    assert origins["weight_decay"] == "trainer"
    assert origins["momentum"] == "default"


def test_eval_mode_switches_where_there_are_two_modes(model):
    plain = hub.build("sgd", model)
    with hub.eval_mode(plain):
        pass
    optimizer = hub.build("schedule_free_adamw", model, lr=0.1)
    train(model, optimizer, 3)
    before = [p.clone() for p in model.parameters()]
    with hub.eval_mode(optimizer):
        assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)
    assert optimizer.param_groups[0]["train_mode"]


def test_the_optimizer_of_a_wrapper_is_switched(model):
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

    optimizer = hub.build("schedule_free_adamw", model, lr=0.1)
    with hub.eval_mode(Wrapper(optimizer)):
        assert not optimizer.state
    train(model, optimizer, 1)
    with hub.eval_mode(Wrapper(optimizer)):
        assert not optimizer.param_groups[0]["train_mode"]


def test_warnings_come_through_warnings(model):
    with pytest.warns(hub.HubWarning, match="round to zero") as record:
        hub.build("adamw_torch", model.bfloat16(), lr=1e-6)
    assert record[0].filename == __file__


class Bounded(torch.optim.SGD):
    """SGD with arguments that may be infinite."""

    def __init__(self, params, lr=1e-3, threshold=float("inf"), bounds=(0.0, float("inf"))):
        super().__init__(params, lr=lr)
        self.given = (threshold, bounds)


def test_infinity_survives_json():
    infinity = float("inf")
    given = (Bounded, {"bounds": (0.0, -infinity)})
    plan = hub.plan(given, torch.nn.Linear(2, 2), max_grad_norm=infinity)
    again = hub.Plan.from_dict(json.loads(json.dumps(plan.to_dict(), allow_nan=False)))
    assert again == plan
    values = {argument.name: argument.value for argument in again.arguments}
    assert values["threshold"] == infinity
    assert values["bounds"] == (0.0, -infinity)
    assert again.max_grad_norm == infinity


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_thread_takes_the_first_square_root(dtype, model):
    """Several threads of a step could make MKL use a kernel of low accuracy for its first roots."""
    with Roots() as roots, torch.device("meta"):
        hub.build("adamw_torch", model)
    assert ("cpu", dtype, 1) in roots.taken


class Roots(TorchDispatchMode):
    """Records device, dtype and size of each tensor of which the square root is taken."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.sqrt.default:
            self.taken.append((args[0].device.type, args[0].dtype, args[0].numel()))
        return func(*args, **(kwargs or {}))


def test_groups_for_a_constructor_have_their_weight_decay(model):
    """Also the decayed ones, so that a factory that forgets the argument decays all the same."""
    taken = []

    def factory(groups, lr=1e-3, weight_decay=0.0):
        taken.extend(group["weight_decay"] for group in groups)
        return torch.optim.SGD(groups, lr=lr)

    hub.build((factory, {"weight_decay": 0.25}), model)
    assert taken == [0.25, 0.0]
