"""What a Trainer's loggers and its model card read, and what its arguments leave to others."""

import copy
import logging
from contextlib import nullcontext

import pytest
import torch
from helpers.problem import BATCH, LR, STEPS, difference, make_model, plain, rows, weights_of
from helpers.trainer import settings
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.modelcard import TrainingSummary

import hub
from hub.trainers.transformers import attach, enable, hub_arguments, optimizer

HubArguments = hub_arguments(TrainingArguments)
WAYS = ("hub_arguments", "enable", "attach", "optimizer")
RANK = {"optim_args": "rank=8", "optim_target_modules": "all-linear"}


def around(folder, way, name, cls=Trainer, **values):
    arguments = HubArguments if way == "hub_arguments" else TrainingArguments
    named = {} if way in ("attach", "optimizer") else {"optim": name}
    more = {"optimizer_cls_and_kwargs": optimizer(name)} if way == "optimizer" else {}
    config = settings(folder, arguments, **named, **values)
    running = cls(make_model(), config, train_dataset=rows(STEPS * BATCH), **more)
    if way == "attach":
        attach(running, name)
    return running


class Logger(TrainerCallback):
    """Reads the arguments when those of Transformers do."""

    def on_train_begin(self, args, *_, **__):
        self.seen = args.to_sanitized_dict()


@pytest.mark.parametrize("way", WAYS)
def test_loggers_and_the_model_card_read_what_is_trained(way, tmp_path, caplog):
    reader = Logger()
    with enable(override=True) if way == "enable" else nullcontext():
        running = around(tmp_path, way, "stable_adamw")
        config, before = running.args, running.args.to_dict()
        running.add_callback(reader)
        with caplog.at_level(logging.INFO, logger="hub"):
            running.train()
    assert reader.seen["optim"] == "stable_adamw"
    assert "betas=(0.9, 0.99)" in reader.seen["optim_args"]
    assert (reader.seen["adam_beta2"], reader.seen["adam_epsilon"]) == (0.99, 1e-6)
    card = TrainingSummary.from_trainer(running).hyperparameters["optimizer"]
    assert card.startswith("Use stable_adamw with betas=(0.9,0.99) and epsilon=1e-06")
    assert config.to_dict() == before
    assert str(running.optimizer.optimizer.hub_plan) in caplog.text


def test_the_arguments_may_go_to_another_trainer(tmp_path):
    """Which trains what they say, and not what the first trainer has been given."""
    first = around(tmp_path, "optimizer", "sgd")
    config = first.args
    first.train()
    second = Trainer(make_model(), config, train_dataset=rows(STEPS * BATCH))
    assert type(second.create_optimizer()) is torch.optim.AdamW


def test_a_trainer_trains_on_with_what_it_was_asked(tmp_path):
    """And not with what the model card says: a learning rate that changes counts."""
    running = around(tmp_path, "attach", "sgd")
    running.train()
    running.args.learning_rate, running.optimizer, running.lr_scheduler = 0.5, None, None
    running.train()
    plan = running.optimizer.optimizer.hub_plan
    assert {a.name: a.value for a in plan.arguments}["lr"] == 0.5
    assert {a.name: a.origin for a in plan.arguments}["momentum"] == "default"


@pytest.mark.parametrize("way", WAYS)
def test_what_is_for_another_optimizer_is_a_warning(way, tmp_path):
    """Transformers ignores it, and a search over names has one set of arguments."""
    with enable(override=True) if way == "enable" else nullcontext():
        running = around(tmp_path, way, "adamw_torch", **RANK)
        with pytest.warns(hub.HubWarning) as caught:
            running.create_optimizer()
    texts = sorted(str(one.message) for one in caught)
    assert texts[0].startswith("adamw_torch does not take rank; optim_args sets it without effect")
    assert texts[1].startswith("adamw_torch has no low-rank groups")
    assert len(texts) == 2


def test_what_is_no_optimizers_is_an_error(tmp_path):
    with pytest.raises(hub.OptimArgsError, match="rnak"):
        around(tmp_path, "hub_arguments", "adamw_torch", optim_args="rnak=8").create_optimizer()


def test_what_is_asked_of_hub_is_an_error(tmp_path):
    running = Trainer(make_model(), settings(tmp_path), train_dataset=rows(2))
    attach(running, "adamw_torch", target_modules="all-linear")
    with pytest.raises(hub.TargetModulesError, match="does not accept target_modules"):
        running.create_optimizer()
    running.optimizer_cls_and_kwargs = optimizer("adamw_torch", optim_args="rank=8")
    with pytest.raises(hub.OptimArgsError, match="no argument 'rank'"):
        running.create_optimizer()


@pytest.mark.filterwarnings("ignore::hub.HubWarning")
def test_a_search_over_names(tmp_path):
    """As `Trainer.hyperparameter_search` does between trials, by writing into its arguments."""
    running = around(tmp_path, "hub_arguments", "galore_adamw", **RANK)
    built = []
    for name in ("galore_adamw", "adamw_torch", "galore_adamw"):
        running.args.optim, running.optimizer, running.lr_scheduler = name, None, None
        running.train()
        built.append(running.optimizer.optimizer.hub_plan)
    assert [plan.optimizer for plan in built] == ["galore_adamw", "adamw_torch", "galore_adamw"]
    assert built[2].target_modules == built[0].target_modules != ()
    assert built[2].arguments == built[0].arguments


@pytest.mark.parametrize("way", WAYS)
def test_a_schedule_of_ones_own_is_not_judged(way, tmp_path):
    """ScheduleFree is warned of `linear`, and here it is not used."""

    class Own(Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):  # noqa: ARG002 - theirs
            self.lr_scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, 1.0)
            return self.lr_scheduler

    with enable(override=True) if way == "enable" else nullcontext():
        around(tmp_path, way, "schedule_free_adamw", Own).train()
        with pytest.warns(hub.HubWarning, match="anneals by averaging"):
            around(tmp_path, way, "schedule_free_adamw").create_optimizer()


DEEPSPEED = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("galore_adamw", "flat pieces"),
        ("apollo_adamw", "flat pieces"),
        ("adafactor", "flat pieces"),
        ("adamw_8bit", "flat pieces"),
        ("schedule_free_adamw", "its own copies"),
        ("adamw_torch_layerwise", "backward pass"),
        ("galore_adamw_layerwise", "backward pass"),
        ("lomo", "backward pass"),
        ("adalomo", "backward pass"),
    ],
)
def test_deepspeed_is_refused_where_it_cannot_train(name, reason, tmp_path):
    """With the arguments as a Trainer has them; DeepSpeed itself need not be installed."""
    config = settings(tmp_path, HubArguments, optim=name)
    config.deepspeed = DEEPSPEED
    model = make_model()
    with pytest.raises(hub.UnsupportedError, match=reason):
        hub.create_optimizer(model, config)
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(config)
    for build in (lambda: cls()(model, **keywords), lambda: cls(model.parameters(), **keywords)):
        with pytest.raises(hub.UnsupportedError, match=reason):
            build()
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_deepspeed_with_others(tmp_path):
    config = settings(tmp_path, HubArguments, optim="lion_32bit")
    config.deepspeed = DEEPSPEED
    assert hub.create_optimizer(make_model(), config).hub_plan.optimizer == "lion_32bit"


def test_copies_of_the_arguments_after_training(tmp_path):
    """What a trainer's own copy shows trains the same again."""
    running = around(tmp_path, "hub_arguments", "sgd", adam_beta1=0.9)
    running.train()
    again = copy.copy(running.args)
    model = make_model()
    Trainer(model, again, train_dataset=rows(STEPS * BATCH)).train()
    reference = plain("sgd", lr=LR, momentum=0.9, defaults={"weight_decay": 0.1})
    assert difference(weights_of(model), reference.weights) == 0
