"""`hub.create_optimizer` and its kin: a trainer's arguments, classes, and what is there already."""

import copy
import functools
import json

import pytest
import torch
from helpers.models import train
from helpers.unchanged import unchanged
from torch import nn

import hub
from hub.building.create import _trainer_defaults


@pytest.fixture
def arguments(tmp_path):
    from transformers import TrainingArguments

    return lambda **values: TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", **values
    )


def resolved(optimizer):
    return {argument.name: argument for argument in optimizer.hub_plan.arguments}


@pytest.mark.parametrize("name", hub.list_optimizers())
def test_what_is_left_at_its_default_does_not_override_the_optimizers(name, arguments):
    spec = hub.describe(name)
    defaults, unused = _trainer_defaults(hub.TrainingConfig.load(arguments()), spec.arguments)
    assert defaults == {"lr": 5e-5, "weight_decay": 0.0}
    assert not unused


ALL = {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-7}


@pytest.mark.parametrize(
    ("name", "given", "passed", "unused"),
    [
        ("adamw_torch", ALL, {"betas": (0.8, 0.95), "eps": 1e-7}, []),
        ("adamw_torch", {"adam_beta2": 0.95}, {"betas": (0.9, 0.95)}, []),
        ("stable_adamw", {"adam_beta1": 0.8}, {"betas": (0.8, 0.99)}, []),
        ("stable_adamw", {"adam_epsilon": 1e-7}, {"eps": 1e-7}, []),
        ("galore_adamw", ALL, {"betas": (0.8, 0.95), "eps": 1e-7}, []),
        ("grokadamw", ALL, {"betas": (0.8, 0.95), "eps": 1e-7}, []),
        ("schedule_free_adamw", ALL, {"betas": (0.8, 0.95), "eps": 1e-7}, []),
        ("flash_lion", ALL, {}, [*ALL]),
        ("adagrad", ALL, {}, [*ALL]),
        ("rmsprop", ALL, {}, [*ALL]),
        ("schedule_free_sgd", ALL, {}, [*ALL]),
        ("sgd", ALL, {"momentum": 0.8}, ["adam_beta2", "adam_epsilon"]),
        ("sgd", {"adam_beta1": 0.9}, {"momentum": 0.9}, []),
        ("flash_sgdw", {"adam_beta1": 0.8}, {"momentum": 0.8}, []),
    ],
)
def test_betas_and_eps_go_where_they_mean_something(name, given, passed, unused):
    defaults, left = _trainer_defaults(hub.TrainingConfig(**given), hub.describe(name).arguments)
    assert {key: defaults[key] for key in defaults.keys() - {"lr", "weight_decay"}} == passed
    assert left == unused


def test_three_betas_keep_their_third():
    spec = hub.describe("ademamix")
    third = spec.arguments.model_fields["betas"].default[2]
    defaults, unused = _trainer_defaults(hub.TrainingConfig(adam_beta2=0.95), spec.arguments)
    assert defaults["betas"] == (0.9, 0.95, third)
    assert not unused


def test_what_is_given_in_vain_is_told(model):
    with pytest.warns(
        hub.HubWarning, match="adagrad does not take adam_beta2; pass its own"
    ) as told:
        hub.create_optimizer(model, {"optim": "adagrad", "adam_beta2": 0.95})
    assert told[0].filename == __file__


def test_the_plan_has_everything(model, arguments):
    config = arguments(
        optim="adamw_torch",
        learning_rate=1e-3,
        weight_decay=0.1,
        adam_beta2=0.95,
        optim_args="amsgrad=true",
        gradient_accumulation_steps=4,
        max_grad_norm=0.5,
    )
    optimizer = hub.create_optimizer(model, config, param_rules={"embed": {"lr_scale": 0.1}})
    plan = optimizer.hub_plan
    assert (plan.gradient_accumulation_steps, plan.max_grad_norm) == (4, 0.5)
    assert {key: (a.value, a.origin) for key, a in resolved(optimizer).items()} == {
        "lr": (1e-3, "trainer"),
        "weight_decay": (0.1, "trainer"),
        "betas": ((0.9, 0.95), "trainer"),
        "amsgrad": (True, "optim_args"),
        **{
            key: (default, "default")
            for key, default in (
                ("eps", 1e-8),
                ("capturable", False),
                ("foreach", None),
                ("fused", None),
                ("maximize", False),
                ("differentiable", False),
                ("compile", False),
                ("rounding", None),
                ("offload", None),
            )
        },
    }
    assert [group.name for group in plan.groups] == ["decay", "no_decay", "embed.decay"]


@pytest.mark.parametrize(("norm", "clips"), [(1.0, 1.0), (0.0, None), (None, None), (0.1, 0.1)])
def test_clipping(norm, clips, model):
    optimizer = hub.create_optimizer(model, {"optim": "adamw_torch", "max_grad_norm": norm})
    assert optimizer.hub_plan.max_grad_norm == clips


def test_clipping_by_default_leaves_the_backward_pass_alone(model):
    """Whatever steps there sees one gradient at a time, and has to be told how to clip."""
    config = {"optim": "adamw_torch_layerwise"}
    optimizer = hub.create_optimizer(model, config)
    assert optimizer.hub_plan.max_grad_norm is None
    hub.detach(optimizer)
    given = {**config, "max_grad_norm": 0.5, "optim_args": "clipping=per_parameter"}
    assert hub.create_optimizer(model, given).hub_plan.max_grad_norm == 0.5


@pytest.mark.parametrize(
    ("flags", "dtype", "mode"),
    [
        ({}, torch.float32, "fp32"),
        ({"bf16": True}, torch.float32, "bf16-mixed"),
        ({"fp16": True}, torch.float32, "fp16-mixed"),
        ({"bf16": True}, torch.bfloat16, "bf16"),
        ({}, torch.bfloat16, "bf16"),
    ],
)
def test_precision(flags, dtype, mode, model):
    config = {"optim": "adamw_torch", "learning_rate": 0.1, **flags}
    optimizer = hub.create_optimizer(model.to(dtype), config)
    assert optimizer.hub_plan.precision.mode == mode


def test_low_rank(model):
    config = {"optim": "galore_adamw", "optim_target_modules": ["mlp"], "optim_args": {"rank": 4}}
    optimizer = hub.create_optimizer(model, config)
    assert [g["rank"] for g in optimizer.param_groups if g.get("low_rank")] == [4]


@pytest.mark.parametrize("form", ["mapping", "json", "config", "arguments"])
def test_all_forms_of_a_configuration_build_the_same(form, make_model, arguments, tmp_path):
    values = {"optim": "adamw_torch", "learning_rate": 1e-3, "warmup_steps": 0.1}
    (tmp_path / "c.json").write_text(json.dumps(values))
    config = {
        "mapping": values,
        "json": tmp_path / "c.json",
        "config": hub.TrainingConfig(**values),
        "arguments": arguments(**values),
    }[form]
    optimizer, schedule = hub.create_optimizer_and_scheduler(make_model(), config, 100)
    expected = hub.build("adamw_torch", make_model(), lr=1e-3, weight_decay=0.0, max_grad_norm=1.0)
    reference = hub.build_scheduler("linear", expected, num_warmup_steps=10, num_training_steps=100)
    assert [schedule.get_last_lr(), [g["betas"] for g in optimizer.param_groups]] == [
        reference.get_last_lr(),
        [g["betas"] for g in expected.param_groups],
    ]
    assert optimizer.hub_plan.groups == expected.hub_plan.groups


def test_a_finished_optimizer_and_schedule_are_used_as_they_are(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    before = copy.deepcopy((set(vars(optimizer)), optimizer.state_dict()))
    built = hub.create_optimizer_and_scheduler(
        model, {"optim": "no_such"}, 10, optimizer=optimizer, scheduler=schedule
    )
    assert built == (optimizer, schedule)
    assert (set(vars(optimizer)), optimizer.state_dict()) == before


def test_a_finished_optimizer_gets_the_named_schedule(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.5}
    _, schedule = hub.create_optimizer_and_scheduler(model, config, 10, optimizer=optimizer)
    rates = []
    for _ in range(6):
        rates += schedule.get_last_lr()
        optimizer.step(), schedule.step()
    assert rates == [0.1 * (step / 5) for step in range(6)]


class Wide(torch.optim.SGD):
    def __init__(self, params, **more):
        super().__init__(params, **more)


@pytest.mark.parametrize(
    ("factory", "given", "lr", "momentum"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, 1e-3, 0.9),
        (torch.optim.SGD, {"momentum": 0.9, "lr": 0.5}, 0.5, 0.9),
        (functools.partial(torch.optim.SGD, momentum=0.7), {}, 1e-3, 0.7),
        (lambda groups, *, lr, momentum=0.0: torch.optim.SGD(groups, lr, momentum), {}, 1e-3, 0.0),
        (Wide, {"lr": 0.5, "momentum": 0.2}, 0.5, 0.2),
    ],
)
def test_a_class_or_factory_gets_the_same_groups(factory, given, lr, momentum, make_model):
    config = {"learning_rate": 1e-3, "weight_decay": 0.1}
    rules = {"embed": {"lr_scale": 0.1}} if factory is not Wide else None
    theirs = hub.create_optimizer(make_model(), {**config, "optim": "sgd"}, param_rules=rules)
    ours = hub.create_optimizer(make_model(), config, optimizer=(factory, given), param_rules=rules)
    assert type(ours) in (torch.optim.SGD, Wide)
    assert ours.hub_plan.optimizer.startswith((torch.optim.SGD.__module__, __name__))
    assert ours.param_groups[0]["lr"] == lr
    for group, reference in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert group["param_names"] == reference["param_names"]
        assert group["momentum"] == momentum
        if lr == 1e-3:
            assert group["lr"] == reference["lr"]


def test_a_class_decays_the_same_parameters(make_model):
    config = {"weight_decay": 0.1}
    ours = hub.create_optimizer(make_model(), config, optimizer=(torch.optim.AdamW, {}))
    assert [(g["name"], g["weight_decay"]) for g in ours.param_groups] == [
        ("decay", 0.1),
        ("no_decay", 0.0),
    ]


def test_a_class_resumes_and_knows_its_own_checkpoints(make_model):
    models = [make_model(), make_model()]
    build = lambda model: hub.build((torch.optim.Adam, {"lr": 0.01}), model)  # noqa: E731
    first, second = map(build, models)
    train(models[0], first, 2)
    models[1].load_state_dict(models[0].state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, optimizer in zip(models, (first, second), strict=True):
        train(model, optimizer, 2, start=2)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)
    other = hub.build("adamw_torch", make_model())
    with pytest.raises(hub.CheckpointError, match=r"torch.optim.adam.Adam, not adamw_torch"):
        other.load_state_dict(first.state_dict())


def required(groups, needed):
    return torch.optim.SGD(groups, needed)


def other_parameters(groups):
    return torch.optim.SGD([nn.Parameter(torch.ones(1))])


@pytest.mark.parametrize(
    ("given", "config", "error", "says"),
    [
        ((torch.optim.SGD, {"momentun": 0.9}), {}, hub.OptimArgsError, "did you mean 'momentum'"),
        ((required, {}), {}, hub.OptimArgsError, "needed"),
        ((torch.optim.SGD, {"momentum": -1.0}), {}, hub.PluginError, "Invalid momentum"),
        ((lambda _: None, {}), {}, hub.PluginError, "returned nothing"),
        (
            (other_parameters, {}),
            {},
            hub.PluginError,
            "that is not in the plan|left out|changed the order",
        ),
        ((torch.optim.SGD,), {}, hub.OptimArgsError, "pass .class_or_factory, {argument"),
        (("sgd", {}), {}, hub.OptimArgsError, "is not a valid optimizer"),
        ((torch.optim.SGD, "lr=1"), {}, hub.OptimArgsError, "is not a valid optimizer"),
        (torch.optim.SGD, {}, hub.OptimArgsError, "is not a valid optimizer"),
        (
            (torch.optim.SGD, {}),
            {"optim_target_modules": "all-linear"},
            hub.OptimArgsError,
            "but another optimizer is given",
        ),
        (
            (torch.optim.SGD, {}),
            {"optim_args": "rank=4"},
            hub.OptimArgsError,
            "but another optimizer is given",
        ),
        (None, {"optim": "adamw_torsh"}, hub.UnknownOptimizerError, "did you mean adamw_torch"),
        (None, {"optim_args": "rank=4"}, hub.OptimArgsError, "has no argument 'rank'"),
    ],
)
def test_bad_optimizers(given, config, error, says, model):
    with unchanged(model), pytest.raises(error, match=says):
        hub.create_optimizer(model, config, optimizer=given)


def test_a_finished_optimizer_has_no_rules(model):
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(hub.OptimArgsError, match="cannot regroup a finished optimizer"):
        hub.create_optimizer(model, {}, optimizer=optimizer, param_rules={"embed": {"lr": 1.0}})


def test_no_model():
    with pytest.raises(hub.HubError, match=r"not a torch.nn.Module"):
        hub.create_optimizer([nn.Parameter(torch.ones(1))], {"bf16": True})


def test_build_takes_a_class_and_keywords(model):
    optimizer = hub.build((torch.optim.SGD, {"momentum": 0.9}), model, lr=0.5)
    assert (resolved(optimizer)["lr"].origin, optimizer.defaults["lr"]) == ("keyword", 0.5)
    with pytest.raises(hub.OptimArgsError, match="given twice"):
        hub.build((torch.optim.SGD, {"lr": 0.9}), model, lr=0.5)
    with pytest.raises(hub.OptimArgsError, match="already has its arguments"):
        hub.build((torch.optim.SGD, {"lr": 0.9}), model, optim_args="momentum=0.9")


def test_estimate_takes_a_class(model):
    ours, named = (hub.estimate(what, model) for what in ((torch.optim.Adam, {}), "adamw_torch"))
    assert ours == named


def test_a_class_of_schedules(model):
    from torch.optim.lr_scheduler import OneCycleLR

    arguments = {"max_lr": 0.1, "total_steps": 20}
    ours = hub.build("adamw_torch", model)
    schedule = hub.create_scheduler(ours, {}, 20, scheduler=(OneCycleLR, arguments))
    theirs = torch.optim.AdamW(nn.Linear(1, 1).parameters())
    reference = OneCycleLR(theirs, **arguments)
    for _ in range(19):
        assert schedule.get_last_lr() == reference.get_last_lr() * 2
        ours.step(), theirs.step(), schedule.step(), reference.step()


@pytest.mark.parametrize(
    ("scheduler", "config", "says"),
    [
        ((torch.optim.lr_scheduler.OneCycleLR, {"maxlr": 1.0}), {}, "did you mean 'max_lr'"),
        ((torch.optim.lr_scheduler.OneCycleLR, {}), {}, "max_lr"),
        (3, {}, "is not a valid schedule"),
        (None, {"lr_scheduler_type": "linaer"}, "did you mean linear"),
        (None, {"lr_scheduler_kwargs": {"power": 2}}, "linear has no argument 'power'"),
        (None, {"lr_scheduler_kwargs": {"num_warmup_steps": 2}}, "no argument 'num_warmup_steps'"),
        (None, {"warmup_steps": 11}, "11 warm-up steps do not fit into 10"),
    ],
)
def test_bad_schedules(scheduler, config, says, model):
    with pytest.raises(hub.HubError, match=says):
        hub.create_scheduler(hub.build("sgd", model), config, 10, scheduler=scheduler)


def test_groups_of_a_hub_optimizer(model):
    optimizer = hub.build(
        "adamw_torch", model, lr=1e-3, weight_decay=0.1, param_rules={"embed": {"lr_scale": 0.5}}
    )
    found = hub.describe_groups(optimizer).groups
    assert [(g.name, g.lr, g.weight_decay) for g in found] == [
        ("decay", 1e-3, 0.1),
        ("no_decay", 1e-3, 0.0),
        ("embed.decay", 5e-4, 0.1),
    ]
    assert found[2].parameters == ("embed.weight",)
    assert (found[2].tensors, found[2].elements) == (1, 32 * 16)
    text = str(hub.describe_groups(optimizer))
    assert "embed.decay" in text
    assert "0.0005" in text


def test_groups_of_any_optimizer():
    from accelerate import Accelerator

    parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.tensor(1.0))]
    optimizer = torch.optim.Rprop([{"params": [p]} for p in parameters], lr=torch.tensor(0.5))
    found = hub.describe_groups(optimizer)
    assert [(g.name, g.lr, g.weight_decay) for g in found.groups] == [
        ("0", 0.5, None),
        ("1", 0.5, None),
    ]
    assert [g.parameters for g in found.groups] == [("2×3",), ("scalar",)]
    assert str(hub.describe_groups(Accelerator(cpu=True).prepare(optimizer))) == str(found)
    assert "2×3" in str(found)


@pytest.mark.parametrize(
    ("optim", "asked", "trainer_clips", "limit"),
    [
        ("adamw_torch", None, False, 1.0),
        ("adamw_torch", None, True, None),
        ("adamw_torch_layerwise", None, True, None),
        ("adamw_torch_layerwise", "clipping=previous_norm", False, 1.0),
        ("adamw_torch_layerwise", "clipping=previous_norm", True, 1.0),
    ],
)
def test_who_clips_by_default(optim, asked, trainer_clips, limit, model):
    config = hub.TrainingConfig(optim=optim, optim_args=asked)
    built = hub.create_optimizer(model, config, trainer_clips=trainer_clips)
    assert built.hub_plan.max_grad_norm == limit


def test_a_builtin_does_not_tell_what_it_takes():
    with pytest.raises(hub.OptimArgsError, match="cannot be read"):
        hub.create_optimizer(torch.nn.Linear(2, 2), {}, optimizer=(dict, {}))
