"""`cls, kw = Trainer.get_optimizer_cls_and_kwargs(args); cls(groups, **kw)`, as subclasses use it.

The subclasses of LLaMA-Factory and axolotl are reduced to the lines that count.
"""

import pytest
from helpers.problem import BATCH, STEPS, difference, make_model, rows, weights_of
from helpers.trainer import settings
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from transformers import Trainer, TrainingArguments

import hub
from hub.trainers.transformers import attach, enable, hub_arguments, optimizer

HubArguments = hub_arguments(TrainingArguments)
LOW_RANK = {"optim_target_modules": "all-linear", "optim_args": "rank=4"}


def groups_of(model):
    """Return two groups with values of their own, and one with none."""
    first, second, *rest = model.parameters()
    return [
        {"params": [first], "lr": 5e-3, "weight_decay": 0.2},
        {"params": [second], "weight_decay": 0.0},
        {"params": rest},
    ]


class Grouping(Trainer):
    """LLaMA-Factory's way, which is that of every optimizer class."""

    def create_optimizer(self, model=None):  # noqa: ARG002 - theirs
        cls, keywords = Trainer.get_optimizer_cls_and_kwargs(self.args)
        self.optimizer = cls(groups_of(self.model), **keywords)
        return self.optimizer


class Mixin(Trainer):
    """axolotl's way with a factory."""

    def create_optimizer(self, model=None):  # noqa: ARG002 - theirs
        factory, keywords = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
            self.args, self.model
        )
        self.optimizer = factory()(self.model, self.args, **keywords)
        return self.optimizer


def around(cls, folder, arguments=HubArguments, **values):
    config = settings(folder, arguments, **values)
    return cls(make_model(), config, train_dataset=rows(STEPS * BATCH))


def plan_of(running):
    running.create_optimizer()
    return running.optimizer.hub_plan


@pytest.mark.parametrize("name", ["adamw_torch", "adafactor", "sgd", "rmsprop"])
def test_a_subclass_that_groups_itself(name, tmp_path):
    """To the bit Transformers' own class, which has its own default where a group has no decay."""
    trained = []
    for arguments in (HubArguments, TrainingArguments):
        running = around(Grouping, tmp_path, arguments, optim=name)
        running.train()
        trained.append(weights_of(running.model))
    assert difference(*trained) == 0


def test_groups_keep_their_values_and_get_the_models_names(tmp_path):
    plan = plan_of(around(Grouping, tmp_path, optim="stable_adamw", adam_beta1=0.8))
    first, second, third = plan.groups
    assert first.overrides == {"lr": 5e-3, "weight_decay": 0.2}
    assert second.overrides == {"weight_decay": 0.0}
    assert third.overrides == {}
    assert first.parameters[0].name == "model.embed_tokens.weight"
    assert {a.name: a.value for a in plan.arguments}["betas"] == (0.8, 0.99)


def test_low_rank_targets_in_groups(tmp_path):
    """Within each group: the values that it was given hold for both parts."""
    plan = plan_of(around(Grouping, tmp_path, optim="galore_adamw", **LOW_RANK))
    names = [(group.name, len(group.parameters)) for group in plan.groups]
    assert names == [
        ("given.0", 1),
        ("given.1.low_rank", 1),
        ("given.2", 6),
        ("given.2.low_rank", 13),
    ]


def test_a_function_that_a_trainer_calls(tmp_path):
    """LLaMA-Factory's LoRA+ and BAdam are functions; the model is that of the trainer."""

    def grouped(args, model):
        cls, keywords = Trainer.get_optimizer_cls_and_kwargs(args)
        return cls(groups_of(model), **keywords)

    class Calling(Trainer):
        def create_optimizer(self, model=None):  # noqa: ARG002 - theirs
            self.optimizer = grouped(self.args, self.model)
            return self.optimizer

    plan = plan_of(around(Calling, tmp_path, optim="galore_adamw", **LOW_RANK))
    assert len(plan.target_modules) == 14
    assert plan.groups[0].parameters[0].name == "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("galore_adamw", LOW_RANK, hub.TargetModulesError),
        ("schedule_free_adamw", {}, hub.UnsupportedError),
    ],
)
def test_groups_without_a_model_are_refused_where_it_is_needed(name, values, error, tmp_path):
    config = settings(tmp_path, HubArguments, optim=name, **values)
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(config)
    with pytest.raises(error, match="got only parameter groups"):
        cls(groups_of(make_model()), **keywords)


def test_groups_without_a_model(tmp_path):
    """In the frame of a function; the keywords are a class's."""
    config = settings(tmp_path, HubArguments, optim="adamw_torch_layerwise")
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(config)
    assert keywords == {"lr": config.learning_rate}
    assert cls.__name__ == "adamw_torch_layerwise"
    built = cls(make_model().parameters(), **{**keywords, "lr": 0.5}, eps=1e-3)
    assert built.param_groups[0]["lr"] == 0.5
    assert built.param_groups[0]["eps"] == 1e-3
    assert built.param_groups[0]["param_names"][0] == "added.0.0"


BAD_GROUPS = {
    "a number": 5,
    "a text": "model",
    "a group without params": [{"lr": 1.0}],
    "nothing": [],
    "no parameter": [{"params": [1.0]}],
    "twice": lambda model: [{"params": [model.lm_head.weight]}, {"params": [model.lm_head.weight]}],
    "an unknown key": lambda model: [{"params": [model.lm_head.weight], "use_muon": True}],
    "a wrong value": lambda model: [{"params": [model.lm_head.weight], "lr": -1.0}],
}


@pytest.mark.parametrize("bad", BAD_GROUPS.values(), ids=BAD_GROUPS)
def test_bad_groups(bad, tmp_path):
    model = make_model()
    config = settings(tmp_path, HubArguments, optim="adamw_torch")
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(config, model)
    with pytest.raises(hub.HubError):
        cls(bad(model) if callable(bad) else bad, **keywords)


def test_a_keyword_without_effect_is_an_error(tmp_path):
    config = settings(tmp_path, HubArguments, optim="adamw_torch")
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(config)
    with pytest.raises(hub.OptimArgsError, match="momentum"):
        cls(make_model().parameters(), **keywords, momentum=0.9)
    with pytest.raises(hub.OptimArgsError, match="unexpected positional argument"):
        cls()(make_model(), 5, **keywords)


def test_frozen_parameters_are_left_out_of_groups(tmp_path):
    running = around(Grouping, tmp_path, optim="adamw_torch_layerwise")
    running.model.model.embed_tokens.requires_grad_(False)
    assert [group.name for group in plan_of(running).groups] == ["given.1", "given.2"]


def test_loraplus(tmp_path):
    """PEFT's function, which LLaMA-Factory and axolotl have copies of, asks the class's name."""

    class LoraPlus(Trainer):
        def create_optimizer(self, model=None):  # noqa: ARG002 - theirs
            cls, keywords = Trainer.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = create_loraplus_optimizer(
                self.model, cls, loraplus_lr_ratio=4.0, **keywords
            )
            return self.optimizer

    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.lora_A = nn.Linear(4, 2, bias=False)
            self.lora_B = nn.Linear(2, 4, bias=False)
            self.lora_embedding_A = nn.Parameter(nn.init.ones_(self.lora_A.weight.new_empty(2, 4)))

    config = settings(tmp_path, HubArguments, optim="adamw_torch")
    rates = {group["lr"] for group in LoraPlus(Lora(), config).create_optimizer().param_groups}
    assert rates == {config.learning_rate, 4 * config.learning_rate}


@pytest.mark.parametrize("way", ["hub_arguments", "enable", "attach", "optimizer"])
def test_a_factory_that_gets_the_arguments_too(way, tmp_path):
    with enable(override=True):
        named = {"optim": "galore_adamw"} if way in ("hub_arguments", "enable") else {}
        arguments = HubArguments if way == "hub_arguments" else TrainingArguments
        running = around(Mixin, tmp_path, arguments, **named, **LOW_RANK)
        if way == "attach":
            attach(running, "galore_adamw")
        if way == "optimizer":
            running.optimizer_cls_and_kwargs = optimizer("galore_adamw")
        assert plan_of(running).optimizer == "galore_adamw"


def test_a_class_is_no_name():
    with pytest.raises(hub.OptimArgsError, match="a tuple is not the name of an optimizer"):
        optimizer((nn.Linear, {}))
