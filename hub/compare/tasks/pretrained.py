"""A small Llama that has learned Python's documentation, for what only makes sense after that."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, cast

from hub.compare.result import digest
from hub.compare.tasks import corpus, llama
from hub.compare.tasks.stored import stored
from hub.experiments import extra, model

if TYPE_CHECKING:
    from torch import nn

SIZES = {
    "vocab_size": model.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
BATCH_SIZE, LENGTH = 8, 64
STEPS, LEARNING_RATE = 300, 1e-2
"""Of AdamW, with a rate that falls to 0."""


def recipe() -> list[object]:
    """Return what the weights depend on, besides versions."""
    text = corpus.load(None, LENGTH).sha256
    return [SIZES, BATCH_SIZE, LENGTH, STEPS, LEARNING_RATE, text]


def load() -> nn.Module:
    """Return the model in fp32. It is trained once on each machine, which takes some seconds."""
    import torch

    versions = [torch.__version__, extra.load("transformers").__version__]
    weights = stored(f"llama-{digest([recipe(), versions])}.pt", lambda: train().state_dict())
    module = _fresh()
    module.load_state_dict(weights)
    return module


def train() -> nn.Module:
    """Train on one thread, so that every process of a machine computes the same weights."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = _fresh()
        optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=STEPS)
        batches = corpus.training_batches(corpus.load(None, LENGTH), BATCH_SIZE, LENGTH, seed=0)
        for batch in itertools.islice(batches, STEPS):
            torch.autograd.backward(llama.loss(module, batch))
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    finally:
        torch.set_num_threads(threads)
    return module


def _fresh() -> nn.Module:
    """Return the model with random weights, always the same; what is drawn later is not changed."""
    import torch

    transformers = extra.load("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**SIZES)
        auto = transformers.AutoModelForCausalLM
        return cast("nn.Module", auto.from_config(config, dtype=torch.float32))
