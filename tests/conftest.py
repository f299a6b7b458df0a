"""Models and checks that many tests share."""

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn


class Block(nn.Module):
    """An attention-shaped block: linear layers with and without bias, and norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(width, width, bias=False),
                "o_proj": nn.Linear(width, width),
                "q_norm": nn.LayerNorm(width),
            }
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.attn["q_norm"](self.attn["q_proj"](x))
        return self.mlp(x + self.attn["o_proj"](q)) * self.scale


class Model(nn.Module):
    """Embedding, convolution, blocks, a frozen layer, and a head tied to the embedding."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.frozen = nn.Linear(width, width)
        self.frozen.requires_grad_(False)
        self.head = nn.Linear(width, 32, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        x = self.conv(x.mT).mT
        for layer in self.layers:
            x = layer(x)
        return self.head(self.frozen(x))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


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


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    """Take steps on data that depends on the step's number only."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, 32, (2, 8), generator=generator)
        logits = model(tokens).float()
        nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        ).backward()
        optimizer.step()
        optimizer.zero_grad()


def _picture(model: nn.Module) -> dict[str, object]:
    """Everything about a model that a build must leave alone."""
    hooks = [
        {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        for module in model.modules()
    ]
    return {
        "modules": [
            (name, id(module), set(vars(module))) for name, module in model.named_modules()
        ],
        "hooks": hooks,
        "parameters": [
            (
                name,
                id(p),
                p.data_ptr(),
                p.requires_grad,
                p.grad is None,
                dict(vars(p)),
                p._post_accumulate_grad_hooks,
                p._backward_hooks,
            )
            for name, p in model.named_parameters()
        ],
    }


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Check that the block leaves model, random numbers, warnings filters and output alone."""
    values = copy.deepcopy(model.state_dict())
    before = _picture(model)
    rng, python_rng, filters = torch.get_rng_state(), random.getstate(), list(warnings.filters)
    yield
    assert _picture(model) == before
    for name, value in model.state_dict().items():
        assert torch.equal(value, values[name]), name
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == python_rng
    assert warnings.filters == filters
