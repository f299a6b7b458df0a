"""What is stepped: a model's parameters, or tensors of given shapes, with random gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hub.experiments.model import dtype_of, skeleton
from hub.planning.skeleton import with_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.bench.settings import Settings

WIDTH, HIDDEN, LAYERS, VOCABULARY = 512, 1376, 7, 6144
MATRIX = 2
WEIGHT, GRADIENT = 0.02, 1e-3
"""Standard deviations of weights and of gradients."""


class Layer(nn.Module):
    """The parameters of a layer of a Llama."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        self.attn = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up = nn.ModuleList(nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)


def small() -> nn.Module:
    """Return the parameters of a Llama with 25.3 million of them."""
    # Unlike the class's constructor, this draws no random numbers, for which torch's meta device
    # imports a second's worth of modules.
    embedding = nn.Embedding.from_pretrained(torch.empty(VOCABULARY, WIDTH), freeze=False)  # type: ignore[no-untyped-call]
    return nn.Sequential(embedding, *(Layer() for _ in range(LAYERS)))


def of_shapes(shapes: tuple[tuple[int, ...], ...]) -> nn.Module:
    """Return a model of tensors: matrices are linear layers, others are parameters.

    Args:
        shapes: How many tensors, and the shape of each.
    """
    return nn.ModuleList(
        nn.Linear(shape[1], shape[0], bias=False)
        if len(shape) == MATRIX
        else nn.ParameterList([torch.empty(shape)])
        for count, *shape in shapes
        for _ in range(count)
    )


def make_model(settings: Settings) -> nn.Module:
    """Return the model on its device, with random weights; it is not for running.

    Raises:
        HubError: Transformers is missing, or the folder has no usable configuration.
    """
    dtype = dtype_of(settings.precision)
    if settings.model is not None:
        model = skeleton(settings.model, dtype)
    else:
        with torch.device("meta"):
            model = of_shapes(settings.shapes) if settings.shapes else small()
        model = model.to(dtype)
    real = {
        id(tensor): _filled(tensor, settings.device)
        for tensor in (*model.parameters(), *model.buffers())
    }
    return with_tensors(model, real)


def make_gradients(model: nn.Module) -> list[Tensor]:
    """Return a random gradient for each parameter."""
    return [random_like(parameter, GRADIENT) for parameter in model.parameters()]


def _filled(tensor: Tensor, device: str) -> Tensor:
    values = random_like(tensor, WEIGHT, device)
    return nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values


def random_like(tensor: Tensor, scale: float, device: str | None = None) -> Tensor:
    """Return normally distributed numbers; zeros where the dtype has no fractions."""
    made = torch.zeros(tensor.shape, dtype=tensor.dtype, device=device or tensor.device)
    return made.normal_(std=scale) if made.is_floating_point() else made


class Given(torch.autograd.Function):
    """A function of a parameter whose gradient is given."""

    @staticmethod
    def forward(ctx: object, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Return a zero."""
        ctx.gradient = gradient  # type: ignore[attr-defined]
        return parameter.new_zeros(())

    @staticmethod
    def backward(ctx: object, *_: Tensor) -> tuple[Tensor, None]:
        """Return a copy of the gradient, which the parameter may keep."""
        gradient: Tensor = ctx.gradient  # type: ignore[attr-defined]
        return gradient.clone(), None


def loss_with(model: nn.Module, gradients: list[Tensor]) -> Tensor:
    """Return a loss whose backward pass gives the parameters these gradients, one by one."""
    return torch.stack(list(_terms(model, gradients))).sum()


def _terms(model: nn.Module, gradients: list[Tensor]) -> Iterator[Tensor]:
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        yield Given.apply(parameter, gradient)  # type: ignore[no-untyped-call]
