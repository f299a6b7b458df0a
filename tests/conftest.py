"""Fixtures and settings of all tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.models import Model

SMALL_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture
def make_model() -> Callable[..., Model]:
    def make(**sizes: int) -> Model:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Model(**sizes)

    return make


@pytest.fixture
def model(make_model: Callable[..., Model]) -> Model:
    return make_model()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A folder with the configuration of a Llama that is small even beside hub's."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(SMALL_LLAMA))
    return folder
