"""Sentence Transformers (6.2), whose trainer trains the loss's parameters beside the model's."""

from contextlib import nullcontext

import pytest
import sentence_transformers
import torch
from datasets import Dataset
from helpers.problem import difference
from helpers.trainer import settings
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import SoftmaxLoss
from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import hub
from hub.trainers.transformers import attach, enable, hub_arguments, optimizer

WORDS = ["[UNK]", "a", "red", "blue", "fox", "dog", "runs", "sleeps"]
WAYS = ("hub_arguments", "enable", "attach", "optimizer")
LOW_RANK = {"optim_target_modules": "all-linear", "optim_args": "rank=4"}


def loss_of_a_model():
    """Return a loss with a classifier of its own, around a model of an embedding and a layer."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = [StaticEmbedding(words, embedding_dim=8), Dense(8, 8)]
        model = sentence_transformers.SentenceTransformer(modules=modules, device="cpu")
        return SoftmaxLoss(model, sentence_embedding_dimension=8, num_labels=2)


def data_of_pairs():
    first = [f"a {color} fox runs" for color in ("red", "blue") * 5]
    second = [f"a {color} dog sleeps" for color in ("blue", "red") * 5]
    return Dataset.from_dict({"a": first, "b": second, "label": [0, 1] * 5})


def around(loss, folder, way, name, **values):
    cls = SentenceTransformerTrainingArguments
    cls = hub_arguments(cls) if way == "hub_arguments" else cls
    named = {} if way in ("attach", "optimizer") else {"optim": name}
    config = settings(folder, cls, **named, **values)
    more = {"optimizer_cls_and_kwargs": optimizer(name)} if way == "optimizer" else {}
    running = SentenceTransformerTrainer(
        loss.model, config, train_dataset=data_of_pairs(), loss=loss, **more
    )
    if way == "attach":
        attach(running, name)
    return running


def trained(folder, way, name, **values):
    """Return the weights of model and loss, and the trainer."""
    loss = loss_of_a_model()
    with enable(override=True) if way == "enable" else nullcontext():
        running = around(loss, folder, way, name, **values)
        running.train()
    return {key: value.detach().clone() for key, value in loss.state_dict().items()}, running


@pytest.mark.parametrize("mapping", [{}, {"embedding": 0.5, "classifier": 1e-3}], ids=["", "rates"])
@pytest.mark.parametrize("way", WAYS)
def test_equal_to_its_own(way, mapping, tmp_path):
    """With its groups: the loss's classifier, and the rates of `learning_rate_mapping`."""
    ours, running = trained(tmp_path, way, "adamw_torch", learning_rate_mapping=mapping)
    theirs, _ = trained(tmp_path, "its own", "adamw_torch", learning_rate_mapping=mapping)
    assert difference(ours, theirs) == 0
    assert running.optimizer.optimizer.hub_plan.optimizer == "adamw_torch"


@pytest.mark.parametrize("way", ["hub_arguments", "attach"])
@pytest.mark.parametrize(
    "name",
    [
        "adafactor",
        "stable_adamw",
        "schedule_free_adamw",
        "galore_adamw",
        "adamw_8bit",
        "adamw_torch_layerwise",
        "lomo",
    ],
)
def test_every_trained_weight_moves(name, way, tmp_path):
    before = {key: value.clone() for key, value in loss_of_a_model().state_dict().items()}
    values = LOW_RANK if name.startswith("galore") else {}
    schedule = "constant" if "free" in name else "linear"
    after, running = trained(tmp_path, way, name, lr_scheduler_type=schedule, **values)
    assert before.keys() == after.keys()
    assert not any(weight.equal(before[key]) for key, weight in after.items())
    plan = running.optimizer.optimizer.hub_plan
    assert plan.target_modules == (("1.linear",) if name.startswith("galore") else ())


def test_rules_cannot_regroup_its_groups(tmp_path):
    running = around(loss_of_a_model(), tmp_path, "its own", "adamw_torch")
    attach(running, "adamw_torch", param_rules={"embedding": {"lr_scale": 0.1}})
    with pytest.raises(hub.OptimArgsError, match="creates its own parameter groups"):
        running.train()


def test_a_warm_up_that_is_not_given(tmp_path):
    """Its field is None, as Transformers 5 has no ratio."""
    config = settings(tmp_path, SentenceTransformerTrainingArguments)
    assert config.warmup_ratio is None
    assert "warmup_ratio" not in hub.TrainingConfig.load(config).model_fields_set
