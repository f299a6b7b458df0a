"""What Transformers' own tests say of its optimizers (5.23, `tests/trainer`), said of hub's.

Weights, rates and resuming are in `test_transformers.py` and `test_resume.py`, for every name.
"""

from itertools import pairwise

import pytest
from helpers.problem import LR, STEPS, difference, make_model, plain, weights_of
from helpers.trainer import WEIGHT_DECAY, logged, settings, trainer
from transformers import TrainingArguments

import hub
from hub.trainers.transformers import hub_arguments, optimizer

HubArguments = hub_arguments(TrainingArguments)
LOW_RANK = ("galore_adamw", "galore_adamw_layerwise", "galore_adafactor", "apollo_adamw")


def plan_of(folder, **values):
    running = trainer(make_model(), settings(folder, HubArguments, **values))
    return running.create_optimizer().hub_plan


def values_of(plan):
    return {argument.name: argument.value for argument in plan.arguments}


@pytest.mark.parametrize("name", LOW_RANK)
@pytest.mark.parametrize(
    ("modules", "count"),
    [
        ([r".*attn.*", r".*mlp.*"], 14),
        (["q_proj", "k_proj", "v_proj"], 6),
        (r".*\.mlp\..*", 6),
        ("all-linear", 14),
        ("mlp", 6),
    ],
)
def test_target_modules(name, modules, count, tmp_path):
    """`all-linear` leaves out the head, as it does in PEFT."""
    plan = plan_of(tmp_path, optim=name, optim_args="rank=4", optim_target_modules=modules)
    assert len(plan.target_modules) == count
    assert sum(len(group.parameters) for group in plan.groups if group.low_rank) == count


@pytest.mark.parametrize("name", LOW_RANK)
def test_low_rank_needs_target_modules(name, tmp_path):
    with pytest.raises(hub.TargetModulesError, match="requires target_modules"):
        plan_of(tmp_path, optim=name)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        (
            "galore_adamw",
            "rank=64, update_proj_gap=100, scale=0.10",
            {"rank": 64, "update_proj_gap": 100, "scale": 0.1},
        ),
        (
            "apollo_adamw",
            "proj=random,scale_type=tensor,rank=1,update_proj_gap=100,scale=128.0",
            {"proj": "random", "scale_type": "tensor", "rank": 1, "scale": 128.0},
        ),
        ("stable_adamw", "kahan_sum=false, decouple_lr=False", {"kahan_sum": False}),
        ("adamw_torch_8bit", "block_size=128", {"block_size": 128}),
        ("rmsprop_bnb", "alpha=0.9", {"alpha": 0.9}),
        ("ademamix", "betas=(0.9, 0.95, 0.999), alpha=4", {"betas": (0.9, 0.95, 0.999)}),
        ("schedule_free_adamw", "r=0.5, weight_lr_power=1", {"r": 0.5, "weight_lr_power": 1}),
    ],
)
def test_optim_args(name, text, values, tmp_path):
    low_rank = {"optim_target_modules": "all-linear"} if name in LOW_RANK else {}
    schedule = "constant" if "free" in name else "linear"
    plan = plan_of(tmp_path, optim=name, optim_args=text, lr_scheduler_type=schedule, **low_rank)
    found = values_of(plan)
    assert {key: found[key] for key in values} == values


@pytest.mark.parametrize("name", ["galore_adamw_layerwise", "apollo_adamw_layerwise", "lomo"])
def test_the_logged_rate_is_the_one_in_use(name, tmp_path):
    """With a cosine, which Transformers logs and its layerwise optimizers never see."""
    low_rank = {"optim_target_modules": "all-linear", "optim_args": "rank=4"}
    low_rank = {} if name == "lomo" else low_rank
    config = settings(tmp_path, HubArguments, optim=name, lr_scheduler_type="cosine", **low_rank)
    running, used = trainer(make_model(), config), []
    optimizer = running.create_optimizer()
    optimizer.register_step_pre_hook(lambda live, *_: used.append(live.param_groups[0]["lr"]))
    running.train()
    rates = logged(running, "learning_rate")
    assert rates[0] == LR
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert used == rates


@pytest.mark.parametrize("name", ["lomo", "adalomo", "grokadamw", "schedule_free_radam"])
def test_every_trained_weight_moves(name, tmp_path):
    model = make_model()
    model.model.layers[0].requires_grad_(False)
    before = weights_of(model)
    schedule = "constant" if "free" in name else "linear"
    running = trainer(
        model, settings(tmp_path, HubArguments, optim=name, lr_scheduler_type=schedule)
    )
    running.train()
    for key, weight in weights_of(model).items():
        assert weight.equal(before[key]) == ("layers.0." in key), key


@pytest.mark.parametrize("name", ["adamw_torch", "galore_adamw_layerwise", "adafactor", "lomo"])
def test_bf16_autocast(name, tmp_path):
    model = make_model()
    given = optimizer(
        name,
        optim_args=dict(hub.describe(name).example_arguments) | {"lr": LR},
        target_modules="all-linear" if name in LOW_RANK else None,
    )
    config = settings(tmp_path, bf16=True)
    running = trainer(model, config, optimizer_cls_and_kwargs=given)
    running.train()
    plan = running.optimizer.optimizer.hub_plan
    assert plan.precision.mode == "bf16-mixed"
    reference = plain(name, precision="bf16-mixed", defaults={"weight_decay": WEIGHT_DECAY})
    assert difference(weights_of(model), reference.weights) == 0


@pytest.mark.parametrize("name", ["adamw_torch_layerwise", "lomo"])
def test_a_gradient_scaler_is_refused_inside_the_backward_pass(name, tmp_path):
    factory, keywords = optimizer(name, args=settings(tmp_path, fp16=True))
    with pytest.raises(hub.PrecisionError, match="fp16-mixed"):
        factory()(make_model(), **keywords)


def test_adafactor_with_a_rate_of_its_own(tmp_path):
    """As `AdafactorSchedule` needs; its name is no `lr_scheduler_type`, so both are given."""
    ours = make_model()
    adafactor = hub.build("adafactor", ours, lr=None, relative_step=True, warmup_init=True)
    both = adafactor, hub.build_scheduler("adafactor", adafactor)
    running = trainer(ours, settings(tmp_path), optimizers=both)
    running.train()
    assert running.state.global_step == STEPS
    assert difference(weights_of(ours), weights_of(make_model())) > 0
    rates = logged(running, "learning_rate")
    assert len(set(rates)) == STEPS
