"""The page of recipes is executed from top to bottom."""

import pytest
import torch
from torch.utils.data import TensorDataset

from tests.docs.conftest import DOCS, Classifier, blocks

PAGE = DOCS / "recipes.md"
REFERENCE = {  # what Transformers' documentation shows, by what is special to it
    "warmup_ratio",
    "param_rules",
    "training_steps",
    "adafactor",
    "adamw_8bit",
    "sgd",
    "cosine",
    "constant_with_warmup",
    "polynomial",
    "greedy",
    "apollo_adamw",
    "scale_type=tensor",
    "flash_adamw",
    "master_weight_bits=None",
    "grokadamw",
    "adalomo",
    "galore_adamw_layerwise",
    "schedule_free_radam",
    "stable_adamw",
    "galore_adamw",
    "torch.optim.SGD",
    "optimizer=optimizer",
    "OneCycleLR",
    "add_param_group",
    "describe_groups",
    "load_state_dict",
}


@pytest.mark.filterwarnings("ignore:flash_adamw:hub.HubWarning")  # here it has no GPU
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = TensorDataset(torch.randn(100, 8), torch.randint(0, 3, (100,)))
    namespace = {"model": Classifier(), "train_dataset": data, "eval_dataset": data}
    for number, block in enumerate(blocks(PAGE.read_text())):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), namespace)


def test_the_page_has_it_all():
    text = "".join(blocks(PAGE.read_text()))
    assert {word for word in REFERENCE if word not in text} == set()
