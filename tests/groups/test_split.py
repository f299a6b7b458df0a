"""Which parameter lands in which group, with which values."""

import pytest
import torch
from helpers.split import as_split
from torch import nn

import hub
from hub.groups.given import read_given_groups


def groups(plan):
    return {group.name: [p.name for p in group.parameters] for group in plan.groups}


def test_decay_and_no_decay(model):
    plan = hub.plan("adamw_torch", model, weight_decay=0.1)
    assert set(groups(plan)) == {"decay", "no_decay"}
    assert groups(plan)["decay"] == [
        "embed.weight",
        "conv.weight",
        *(
            f"layers.{i}.{name}.weight"
            for i in range(2)
            for name in ("attn.q_proj", "attn.o_proj", "mlp.0", "mlp.2")
        ),
    ]
    why = {p.name: p.why for group in plan.groups for p in group.parameters}
    assert why["layers.0.attn.q_norm.weight"] == "norm (LayerNorm)"
    assert why["layers.0.scale"] == "1-D"
    assert why["conv.bias"] == "bias or norm, by name"


def test_every_trainable_parameter_is_in_one_group_and_tied_ones_count_once(model):
    optimizer = hub.build("adamw_torch", model)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert sorted(map(id, grouped)) == sorted(trainable)
    for group in optimizer.param_groups:
        named = dict(model.named_parameters())
        assert [id(named[name]) for name in group["param_names"]] == [
            id(p) for p in group["params"]
        ]


def test_the_optimizer_gets_what_the_plan_says(model):
    optimizer = hub.build(
        "adamw_torch", model, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-7, lr=0.5
    )
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decay == {"decay": 0.1, "no_decay": 0.0}
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.9), 1e-7)


class Oddities(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.patch = nn.LayerNorm([4, 8])
        self.marked = nn.Parameter(torch.zeros(4, 4))
        self.marked._no_weight_decay = True
        self.inner = Inner()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.plain = nn.Linear(8, 8)

    def no_weight_decay(self):
        return {"pos_embed"}


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 4))
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def no_weight_decay(self):
        return ["table"]


def test_what_a_model_says_itself_is_honoured():
    plan = hub.plan("adamw_torch", Oddities())
    assert groups(plan)["decay"] == ["inner.weight", "plain.weight"]
    why = {p.name: p.why for group in plan.groups for p in group.parameters}
    assert why["pos_embed"] == why["inner.table"] == "no_weight_decay()"
    assert why["patch.weight"] == "norm (LayerNorm)"
    assert why["marked"] == "marked _no_weight_decay"
    assert why["temperature"] == "0-D"


FAMILIES = {
    "llama": "LlamaConfig",
    "gpt2": "GPT2Config",
    "bert": "BertConfig",
    "t5": "T5Config",
    "vit": "ViTConfig",
    "gemma2": "Gemma2Config",
    "bloom": "BloomConfig",
    "qwen3": "Qwen3Config",
}
SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
}


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_split_like_transformers(config):
    """Transformers decays the same parameters, but for 1-D ones, which hub never decays."""
    import transformers
    from transformers import Trainer

    settings = getattr(transformers, config)(**SMALL)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(settings)
    theirs = set(Trainer.get_decay_parameter_names(None, model))
    ours = set(groups(hub.plan("adamw_torch", model))["decay"])
    assert ours == {name for name, p in model.named_parameters() if name in theirs and p.ndim > 1}


def test_rules_first_match_wins_and_groups_come_in_order(model):
    plan = hub.plan(
        "adamw_torch",
        model,
        lr=1.0,
        weight_decay=0.1,
        param_rules=[
            ("layers.0", {"lr_scale": 0.1}),
            (r"layers\..*", {"lr_scale": 0.5, "weight_decay": 0.2}),
        ],
    )
    assert [(g.name, g.overrides) for g in plan.groups] == [
        ("decay", {}),
        ("no_decay", {"weight_decay": 0.0}),
        ("layers.0.decay", {"lr": 0.1}),
        ("layers.0.no_decay", {"lr": 0.1, "weight_decay": 0.0}),
        (r"layers\..*.decay", {"lr": 0.5, "weight_decay": 0.2}),
        (r"layers\..*.no_decay", {"lr": 0.5, "weight_decay": 0.0}),
    ]
    optimizer = hub.build("adamw_torch", model, lr=1.0, param_rules={"layers.0": {"lr_scale": 0.1}})
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0, 0.1, 0.1]


def test_layerwise_learning_rate_decay(make_model):
    model = make_model(depth=12)
    rules = {f"layers.{i}": {"lr_scale": 0.9 ** (12 - i)} for i in range(12)}
    optimizer = hub.build("adamw_torch", model, lr=1.0, param_rules=rules)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    for i in range(12):
        assert (
            rates[f"layers.{i}.mlp.0.weight"] == rates[f"layers.{i}.mlp.0.bias"] == 0.9 ** (12 - i)
        )


def test_low_rank_groups_split_into_decay_and_no_decay(make_model):
    model = make_model()
    model.no_weight_decay = lambda: {"layers.0.mlp.0.weight"}
    plan = hub.plan("galore_adamw", model, target_modules=["mlp"], weight_decay=0.1)
    assert groups(plan)["low_rank.no_decay"] == ["layers.0.mlp.0.weight"]
    assert len(groups(plan)["low_rank.decay"]) == 3


def test_order_does_not_depend_on_the_run(make_model):
    first, second = (
        hub.plan("adamw_torch", make_model(), param_rules={"mlp": {"lr": 1.0}}) for _ in "ab"
    )
    assert first == second


def test_names_are_those_of_the_uncompiled_model(model):
    assert groups(hub.plan("adamw_torch", torch.compile(model, backend="eager"))) == groups(
        hub.plan("adamw_torch", model)
    )


def partly_sharded():
    """As `fully_shard` leaves `ignored_params`."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 8))
    as_split(model[0], (2,))
    return model


def test_plain_tensors_and_dtensors_share_no_group():
    model = partly_sharded()
    assert groups(hub.plan("adamw_torch", model)) == {
        "decay": ["0.weight"],
        "decay.unsharded": ["1.weight", "2.weight"],
        "no_decay": ["0.bias"],
        "no_decay.unsharded": ["2.bias"],
    }
    model[2].bias = None
    assert list(groups(hub.plan("sgd", model))) == ["decay", "decay.unsharded", "no_decay"]
    spec = hub.describe("sgd")
    given = read_given_groups([{"params": model.parameters(), "name": "mine"}], spec, model)
    parts = given.split(spec, spec.arguments(), low_rank=set())
    assert {part.name: len(part.parameters) for part in parts} == {"mine": 2, "mine.unsharded": 2}


def test_groups_whose_parameters_depend_on_each_other_stay_together():
    assert list(groups(hub.plan("grokadamw", partly_sharded()))) == ["decay", "no_decay"]
