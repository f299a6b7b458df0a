"""How many gradients are there at once, in a model of 100 million parameters: measured."""

import gc

import pytest
import torch
from torch import nn

import hub
from hub.measuring import GradientMeter

WIDTH, DEPTH, VOCABULARY = 768, 12, 20_000


class Block(nn.Module):
    """The linear layers of a transformer block, 12 × WIDTH² weights."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.attn(self.norm(x)).chunk(3, -1)
        x = x + self.out(torch.tanh(q) * k + v)
        return x + self.down(nn.functional.gelu(self.up(x)))


class Transformer(nn.Module):
    """12 blocks and an embedding tied to the head: 100 million parameters."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    with torch.device("meta"):
        model = Transformer()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.02)
    return model


def gradient_bytes(model):
    """Return the most bytes of gradients alive at once in a backward pass, and those after it."""
    with GradientMeter(model.parameters()) as meter:
        model(torch.zeros(1, 2, dtype=torch.long)).float().sum().backward()
    gc.collect()
    return meter.most, sum(meter.left())


def test_eagerly_all_gradients_are_there_at_once(model):
    assert sum(p.numel() for p in model.parameters()) > 100e6
    whole = sum(p.nbytes for p in model.parameters())
    optimizer = hub.build("sgd", model, lr=0.0)
    assert gradient_bytes(model) == (whole, whole)
    assert hub.estimate("sgd", model).gradients == whole
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sgd", {}),
        ("adamw_torch", {}),
        ("adafactor", {}),
        ("stable_adamw", {}),
        ("adamw_8bit", {}),
        ("lion_32bit", {}),
        ("flash_adamw", {"quantize": False, "fused": False, "master_weight_bits": None}),
        ("schedule_free_adamw", {}),
        ("apollo_adamw", {"target_modules": "all-linear", "rank": 4}),
        ("galore_adamw", {"target_modules": r".*\.out", "rank": 4}),
        ("galore_adafactor", {"target_modules": r".*\.out", "rank": 4}),
        ("galore_adamw_8bit", {"target_modules": r".*\.out", "rank": 4}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layerwise_forms_have_the_two_largest_at_most(name, arguments, model):
    name += "_layerwise"
    estimated = hub.estimate(name, model, lr=0.0, **arguments).gradients
    optimizer = hub.build(name, model, lr=0.0, **arguments)
    try:
        most, left = gradient_bytes(model)
        two = sum(sorted(p.nbytes for p in model.parameters())[-2:])
        assert most <= 1.05 * two
        assert left == 0
        assert estimated == two
    finally:
        hub.detach(optimizer)
        optimizer.zero_grad()
