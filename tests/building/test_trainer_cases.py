"""What Transformers' Trainer does with groups, rates and schedules, held against the real one.

`test_vs_transformers.py` compares training with each optimizer; here it is the factory around them.
"""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import hub

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "d_model": 16,
    "n_embd": 16,
    "dim": 16,
    "embedding_size": 16,
    "word_embed_proj_dim": 16,
    "num_hidden_layers": 1,
    "n_layer": 1,
    "n_layers": 1,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_attention_heads": 2,
    "n_head": 2,
    "n_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "ffn_dim": 32,
    "hidden_dim": 32,
    "pad_token_id": 0,
}
FAMILIES = {  # besides those of test_groups.py
    "mistral": "MistralConfig",
    "opt": "OPTConfig",
    "distilbert": "DistilBertConfig",
    "electra": "ElectraConfig",
    "roberta": "RobertaConfig",
    "bart": "BartConfig",
    "falcon": "FalconConfig",
    "phi": "PhiConfig",
    "olmo2": "Olmo2Config",
    "gpt_neox": "GPTNeoXConfig",
}


class Net(nn.Module):
    """An encoder with a norm, and a classifier; as Trainer wants it."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 8))
        self.classifier = nn.Linear(8, 3)

    def forward(self, x, labels):
        logits = self.classifier(self.encoder(x))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def net():
    torch.manual_seed(0)
    return Net()


def data(length=22):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "x": torch.randn(4, generator=generator),
            "labels": torch.randint(3, (), generator=generator),
        }
        for _ in range(length)
    ]


@pytest.fixture
def arguments(tmp_path):
    from transformers import TrainingArguments

    return lambda **values: TrainingArguments(
        **{
            "output_dir": str(tmp_path),
            "optim": "adamw_torch",
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 4,
            "train_sampling_strategy": "sequential",
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **values,
        }
    )


def trainer_of(model, config, **more):
    from transformers import Trainer

    return Trainer(model, config, train_dataset=data(), **more)


def groups_of(optimizer, model):
    """Return of each group what it sets and which parameters it has, empty groups left out."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        (
            {k: v for k, v in group.items() if k not in ("params", "param_names", "name")},
            {names[id(p)] for p in group["params"]},
        )
        for group in optimizer.param_groups
        if group["params"]
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_of_model_families(family, arguments):
    """Equal to the Trainer's, but for 1-D parameters, which hub never decays."""
    import transformers

    settings = getattr(transformers, FAMILIES[family])(**SMALL)
    model = transformers.AutoModel.from_config(settings)
    config = arguments(weight_decay=0.1, adam_beta2=0.95)
    (_, decayed), (_, plain) = groups_of(trainer_of(model, config).create_optimizer(), model)
    flat = {name for name in decayed if model.get_parameter(name).ndim < 2}
    ours = groups_of(hub.create_optimizer(model, config), model)
    assert [names for _, names in ours] == [decayed - flat, plain | flat]
    assert [group["weight_decay"] for group, _ in ours] == [0.1, 0.0]
    assert {(group["lr"], group["betas"]) for group, _ in ours} == {(1e-2, (0.9, 0.95))}


OPTIMIZERS = [
    ("adamw_torch", {}),
    ("adamw_torch", {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-7}),
    ("adamw_torch_fused", {"weight_decay": 0.1}),
    ("adafactor", {"weight_decay": 0.1}),
    ("sgd", {}),
    ("sgd", {"optim_args": "momentum=0.9, nesterov=true"}),
    ("adagrad", {"optim_args": "lr_decay=0.1"}),
    ("rmsprop", {"optim_args": "momentum=0.9, alpha=0.9"}),
]


@pytest.mark.parametrize(("name", "more"), OPTIMIZERS, ids=str)
def test_groups_have_what_the_trainer_gives_them(name, more, arguments):
    config, model = arguments(optim=name, **more), net()
    theirs = groups_of(trainer_of(model, config).create_optimizer(), model)
    ours = groups_of(hub.create_optimizer(model, config), model)
    for (group, names), (reference, their_names) in zip(ours, theirs, strict=True):
        assert names == their_names
        # Whether steps are fused or foreach is how, not what.
        assert {key: group[key] for key in reference if key != "foreach"} == {
            key: value for key, value in reference.items() if key != "foreach"
        }


def test_momentum_of_sgd(arguments):
    """A given adam_beta1 is the momentum in Transformers' documentation, not in its code."""
    config, model = arguments(optim="sgd", adam_beta1=0.8), net()
    assert trainer_of(model, config).create_optimizer().defaults["momentum"] == 0
    assert hub.create_optimizer(model, config).defaults["momentum"] == 0.8
    stock = arguments(optim="sgd")
    assert hub.create_optimizer(model, stock).defaults["momentum"] == 0


SCHEDULES = [
    ({}, 30),
    ({"warmup_steps": 0.1}, 30),
    ({"warmup_steps": 0.101}, 30),
    ({"warmup_steps": 5}, 30),
    ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 3}}, 30),
    ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": '{"num_cycles": 3}'}, 30),
    ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.05}, 30),
    (
        {
            "lr_scheduler_type": "polynomial",
            "warmup_steps": 5,
            "lr_scheduler_kwargs": {"power": 2.0},
        },
        30,
    ),
    (
        {
            "lr_scheduler_type": "cosine_with_min_lr",
            "warmup_steps": 3,
            "lr_scheduler_kwargs": {"min_lr": 1e-3},
        },
        17,
    ),
    (
        {
            "lr_scheduler_type": "warmup_stable_decay",
            "warmup_steps": 0.2,
            "lr_scheduler_kwargs": {"num_decay_steps": 10},
        },
        30,
    ),
]


@pytest.mark.parametrize(("more", "steps"), SCHEDULES, ids=str)
def test_rates_of_every_step(more, steps, arguments):
    config = arguments(**more)
    model = net()
    trainer = trainer_of(model, config)
    trainer.create_optimizer_and_scheduler(steps)
    theirs, reference = trainer.optimizer, trainer.lr_scheduler
    ours, schedule = hub.create_optimizer_and_scheduler(net(), config, steps)
    assert type(schedule).__mro__[-3:] == LambdaLR.__mro__[-3:]
    for _ in range(steps + 2):
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]
        for thing in (ours, theirs, schedule, reference):
            thing.step()


def loop(model, config, **more):
    """Train as the documentation's loop does, with hub."""
    batches = torch.utils.data.DataLoader(data(), config.per_device_train_batch_size)
    steps = hub.TrainingConfig.load(config).training_steps(len(data()))
    optimizer, schedule = hub.create_optimizer_and_scheduler(model, config, steps, **more)
    for _ in range(int(config.num_train_epochs)):
        for batch in batches:
            model(**batch)["loss"].backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert schedule.last_epoch == steps
    return optimizer


@pytest.mark.parametrize(
    "more",
    [
        {"num_train_epochs": 3, "warmup_steps": 0.2, "weight_decay": 0.1},
        {"lr_scheduler_type": "cosine"},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"optim": "adafactor"},
    ],
    ids=str,
)
def test_a_whole_training_to_the_bit(more, arguments):
    config = arguments(**{"num_train_epochs": 2, "max_grad_norm": 0, **more})
    theirs, ours = net(), net()
    trainer_of(theirs, config).train()
    loop(ours, config)
    for (name, weight), reference in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(weight, reference), name


@pytest.fixture
def _norms_add_up_in_one_order(monkeypatch):
    """Not in the model's order for the Trainer and by groups for hub, which rounds differently."""
    clip = torch.nn.utils.clip_grad_norm_

    def clip_in_order(parameters, *args, **kwargs):
        return clip(sorted(parameters, key=lambda p: p.grad.norm().item()), *args, **kwargs)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_in_order)


@pytest.mark.usefixtures("_norms_add_up_in_one_order")
def test_clipping_to_the_bit(arguments):
    config = arguments(num_train_epochs=2, max_grad_norm=0.05, optim="sgd")
    theirs, ours, unclipped = net(), net(), net()
    trainer_of(theirs, config).train()
    loop(ours, config)
    loop(unclipped, arguments(num_train_epochs=2, max_grad_norm=0, optim="sgd"))
    for weights in zip(*(m.parameters() for m in (theirs, ours, unclipped)), strict=True):
        assert torch.equal(weights[1], weights[0])
        assert (weights[2] - weights[0]).abs().max() > 1e-4


def test_a_class_with_arguments_to_the_bit(arguments):
    """The Trainer leaves the learning rate to the arguments; hub adds it where they have none."""
    config = arguments(num_train_epochs=2, weight_decay=0.1, max_grad_norm=0)
    given = (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "lr": 1e-2})
    theirs, ours, without_lr = net(), net(), net()
    trainer_of(theirs, config, optimizer_cls_and_kwargs=given).train()
    loop(ours, config, optimizer=given)
    loop(without_lr, config, optimizer=(given[0], {"momentum": 0.9, "nesterov": True}))
    for weights in zip(*(m.parameters() for m in (theirs, ours, without_lr)), strict=True):
        assert torch.equal(weights[0], weights[1])
        assert torch.equal(weights[0], weights[2])


def test_prebuilt_to_the_bit(arguments):
    config = arguments(num_train_epochs=2, max_grad_norm=0)

    def prebuilt(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    theirs, ours = net(), net()
    trainer_of(theirs, config, optimizers=prebuilt(theirs)).train()
    optimizer, schedule = prebuilt(ours)
    loop(ours, config, optimizer=optimizer, scheduler=schedule)
    for weight, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(weight, reference)


def test_the_documentations_custom_groups(arguments):
    """Its `CustomTrainer.create_optimizer` of four groups, in one rule."""
    config, model = arguments(weight_decay=0.1), net()
    no_decay = ("bias", "encoder.1")
    theirs = {
        (config.learning_rate * scale, 0.0 if plain else config.weight_decay): {
            name
            for name, _ in model.named_parameters()
            if ("encoder" in name) == (scale == 0.1)
            and any(part in name for part in no_decay) == plain
        }
        for scale in (0.1, 1.0)
        for plain in (False, True)
    }
    ours = hub.create_optimizer(model, config, param_rules={"encoder": {"lr_scale": 0.1}})
    assert {
        (group["lr"], group["weight_decay"]): set(group["param_names"])
        for group in ours.param_groups
    } == theirs


def test_frozen_parameters_have_no_group(arguments):
    model = net()
    model.encoder.requires_grad_(False)
    config = arguments(weight_decay=0.1)
    theirs = groups_of(trainer_of(model, config).create_optimizer(), model)
    ours = groups_of(hub.create_optimizer(model, config), model)
    assert [names for _, names in ours] == [names for _, names in theirs]
    assert [names for _, names in ours] == [{"classifier.weight"}, {"classifier.bias"}]


def test_unfrozen_parameters_join_the_schedule(arguments):
    model = net()
    model.classifier.requires_grad_(False)
    optimizer, schedule = hub.create_optimizer_and_scheduler(model, arguments(), 10)
    model.classifier.requires_grad_(True)
    late = [(f"classifier.{name}", p) for name, p in model.classifier.named_parameters()]
    optimizer.add_param_group({"params": late, "lr": 1.0})
    before = model.classifier.weight.clone()
    batch = next(iter(torch.utils.data.DataLoader(data(), 4)))
    for _ in range(3):
        model(**batch)["loss"].backward()
        optimizer.step()
        schedule.step()
    assert not torch.equal(model.classifier.weight, before)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2 * 0.7, 1e-2 * 0.7, 0.7]
