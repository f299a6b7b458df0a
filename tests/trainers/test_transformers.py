"""Every optimizer in Transformers' unmodified Trainer, by `optimizer_cls_and_kwargs`."""

import pytest
import torch
from helpers.problem import (
    KINDS,
    LR,
    STEPS,
    arguments,
    difference,
    make_model,
    names,
    plain,
    rows,
    weights_of,
)
from helpers.trainer import WEIGHT_DECAY, by_name, logged, settings, train, trainer
from transformers import Trainer, get_scheduler

import hub
from hub.spec import Trait
from hub.trainers.transformers import optimizer

DECAY = {"weight_decay": WEIGHT_DECAY, "lr": LR}
RATE_IN_A_TENSOR = ("adamw_torch_4bit", "adamw_torch_8bit")
"""Transformers' schedule multiplies their learning rate in fp32, hub's does not."""


def layerwise(name):
    return Trait.STEPS_IN_BACKWARD in hub.describe(name).traits


@pytest.mark.parametrize("name", names())
def test_weights_rates_and_evaluations(name, tmp_path):
    model = make_model()
    running = train(name, model, tmp_path, eval_strategy="steps", eval_steps=2)
    theirs = {"build_scheduler": get_scheduler} if name in RATE_IN_A_TENSOR else {}
    reference = plain(name, evaluate_at=(2, 4, 5), defaults=DECAY, **theirs)
    assert difference(weights_of(model), reference.weights) == 0
    assert logged(running, "learning_rate") == reference.rates
    assert logged(running, "eval_loss") == reference.evaluations
    assert difference(reference.weights, weights_of(make_model())) > 1e-4


@pytest.mark.parametrize("name", KINDS)
def test_warm_up(name, tmp_path):
    model = make_model()
    running = train(name, model, tmp_path, warmup_steps=2, lr_scheduler_type="constant_with_warmup")
    reference = plain(name, schedule="constant_with_warmup", warmup=2, defaults=DECAY)
    assert logged(running, "learning_rate") == reference.rates == [0.0, LR / 2, LR, LR, LR]
    assert difference(weights_of(model), reference.weights) == 0


@pytest.mark.parametrize("name", KINDS)
def test_accumulation(name, tmp_path):
    model = make_model()
    running = train(name, model, tmp_path, gradient_accumulation_steps=4)
    assert running.state.global_step == STEPS
    # The Trainer divides by all tokens, the loop by a micro-batch's and then by four: two's powers
    # do not round.
    reference = plain(name, accumulation=4, defaults=DECAY)
    assert difference(weights_of(model), reference.weights) == 0


@pytest.mark.parametrize("name", [name for name in KINDS if not layerwise(name)])
def test_clipping(name, tmp_path):
    model = make_model()
    running = train(name, model, tmp_path, max_grad_norm=0.05)
    reference = plain(name, clip=0.05, defaults=DECAY)
    assert difference(weights_of(model), reference.weights) == 0
    assert all(norm > 0.05 for norm in logged(running, "grad_norm"))
    assert running.optimizer.optimizer.hub_plan.max_grad_norm is None  # it is the trainer who clips


@pytest.mark.parametrize("name", ["adamw_torch_layerwise", "lomo"])
@pytest.mark.parametrize("how", ["previous_norm", "per_parameter"])
def test_clipping_in_the_backward_pass(name, how, tmp_path):
    model = make_model()
    config = settings(tmp_path, max_grad_norm=0.05)
    asked = {**arguments(name), "clipping": how}
    running = trainer(model, config, optimizer_cls_and_kwargs=by_name(name, optim_args=asked))
    running.train()
    reference = plain(name, max_grad_norm=0.05, clipping=how, defaults=DECAY)
    assert difference(weights_of(model), reference.weights) == 0
    assert all(norm > 0.05 for norm in logged(running, "grad_norm"))


def test_trainers_default_clips_where_it_is_said_how(tmp_path):
    model = make_model()
    asked = {"clipping": "previous_norm"}
    config = settings(tmp_path, max_grad_norm=1.0)
    name = "adamw_torch_layerwise"
    running = trainer(model, config, optimizer_cls_and_kwargs=optimizer(name, optim_args=asked))
    running.train()
    assert running.optimizer.optimizer.hub_plan.max_grad_norm == 1.0


@pytest.mark.parametrize("name", ["adamw_torch_layerwise", "lomo"])
def test_clipping_without_effect_is_reported_before_training(name, tmp_path):
    running = trainer(make_model(), settings(tmp_path, max_grad_norm=1.0), name)
    with pytest.warns(hub.HubWarning, match=r"max_grad_norm=1.0 has no effect.*max_grad_norm=0"):
        running.create_optimizer()


@pytest.mark.parametrize(
    ("values", "asked", "error"),
    [
        ({"max_grad_norm": 0.5}, {}, "choose clipping"),
        ({"max_grad_norm": 0.0}, {"clipping": "previous_norm"}, "no norm to clip to"),
        (
            {"max_grad_norm": 1.0},
            {"clipping": "exact"},
            "not been measured before the backward pass",
        ),
    ],
)
def test_clipping_that_cannot_be_is_refused(values, asked, error, tmp_path):
    given = optimizer("adamw_torch_layerwise", optim_args=asked)
    running = trainer(make_model(), settings(tmp_path, **values), optimizer_cls_and_kwargs=given)
    with pytest.raises(hub.HubError, match=error):
        running.train()


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
@pytest.mark.parametrize("name", ["adamw_torch", "galore_adamw_layerwise", "lomo"])
def test_schedules_with_a_metric(name, schedule, tmp_path):
    model = make_model()
    running = train(
        name,
        model,
        tmp_path,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs={"factor": 0.5, "patience": 0},
        learning_rate=1.0,
        eval_strategy="steps",
        eval_steps=1,
    )
    reference = plain(
        name,
        lr=1.0,
        schedule=schedule,
        schedule_arguments={"factor": 0.5, "patience": 0},
        evaluate_at=(1, 2, 3, 4, 5),
        defaults=DECAY,
    )
    assert logged(running, "eval_loss") == reference.evaluations
    assert difference(weights_of(model), reference.weights) == 0
    assert len(set(reference.rates)) > 1


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_without_its_metric_is_refused(schedule, tmp_path):
    """By Transformers itself, before there is a trainer."""
    with pytest.raises(ValueError, match="requires an eval strategy"):
        settings(tmp_path, lr_scheduler_type=schedule)


@pytest.mark.parametrize(
    ("name", "asked", "values", "message"),
    [
        ("schedule_free_adamw", {}, {"lr_scheduler_type": "linear"}, "anneals by averaging"),
        (
            "schedule_free_adamw",
            {"warmup_steps": 2},
            {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2},
            "warms up by itself for 2 steps",
        ),
        (
            "schedule_free_adamw",
            {"warmup_steps": 2},
            {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.1, "max_steps": -1},
            "warms up by itself for 2 steps",
        ),
        ("sgd", {}, {"lr_scheduler_type": "constant", "warmup_steps": 2}, "has no effect"),
        ("sgd", {}, {"lr_scheduler_type": "constant", "adam_beta2": 0.9}, "adam_beta2"),
    ],
)
def test_schedules_and_arguments_that_do_not_fit_are_reported(
    name, asked, values, message, tmp_path
):
    config = settings(tmp_path, **values)
    chosen = optimizer(name, optim_args=asked)
    running = Trainer(make_model(), config, train_dataset=rows(4), optimizer_cls_and_kwargs=chosen)
    with pytest.warns(hub.HubWarning, match=message):
        running.create_optimizer()


def test_a_schedule_that_cannot_work_is_refused(tmp_path):
    asked = "relative_step=true, lr=None"
    running = trainer(
        make_model(),
        settings(tmp_path),
        optimizer_cls_and_kwargs=optimizer("adafactor", optim_args=asked),
    )
    with pytest.raises(hub.UnsupportedError, match="computes its learning rate itself"):
        running.train()


def test_a_schedule_that_hub_does_not_know_is_left_to_the_trainer(tmp_path):
    config = settings(tmp_path)
    config.lr_scheduler_type = "of a later version"
    trainer(make_model(), config, "sgd").create_optimizer()


@pytest.mark.parametrize("rounding", ["split", "stochastic"])
def test_bf16_weights_that_learn(rounding, tmp_path):
    model = make_model(torch.bfloat16)
    asked = f"rounding={rounding}, offload=cpu"
    config = settings(tmp_path, bf16=False)
    running = trainer(
        model, config, optimizer_cls_and_kwargs=optimizer("adamw_torch", optim_args=asked)
    )
    running.train()
    reference = plain("adamw_torch", precision="bf16", rounding=rounding, defaults=DECAY)
    assert difference(weights_of(model), reference.weights) == 0
    stalling = plain("adamw_torch", precision="bf16", defaults=DECAY)
    assert difference(stalling.weights, reference.weights) > 0
