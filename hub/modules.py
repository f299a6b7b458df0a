"""What kind of thing a module is: linear layer, norm, embedding, output head."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from torch import nn

from hub.errors import HubError

if TYPE_CHECKING:
    from torch.nn import Module, Parameter

_NORMS: tuple[type[Module], ...] = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    nn.CrossMapLRN2d,
    nn.modules.batchnorm._NormBase,  # noqa: SLF001 - batch and instance norms of all dimensions
)
_NORM_CLASS = re.compile(r".*norm(\d+d)?", re.IGNORECASE)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def trainable_parameters(model: Module) -> list[tuple[str, Parameter]]:
    """Return each parameter that requires a gradient once, under its first name.

    Raises:
        HubError: There is none, or a lazy module has not made its own yet.
    """
    found = [(plain_name(name), p) for name, p in model.named_parameters() if p.requires_grad]
    if not found:
        frozen = next(model.parameters(), None) is not None
        raise HubError(
            "all parameters of the model are frozen" if frozen else "the model has no parameters",
            where=type(model).__name__,
            fix="set requires_grad=True on what is to be trained" if frozen else "",
        )
    lazy = next((name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)), None)
    if lazy is not None:
        raise HubError(
            f"{lazy} has no shape yet",
            where=type(model).__name__,
            fix="run the model on an example batch first, which makes its lazy parameters",
        )
    return found


def plain_name(name: str) -> str:
    """Return a dotted name without the `_orig_mod.` of `torch.compile`.

    A checkpoint then fits the compiled and the plain model.
    """
    return name.replace("_orig_mod.", "")


def is_linear(module: Module) -> bool:
    """Whether the module multiplies by a 2-D `weight`: `nn.Linear`, or GPT-2's `Conv1D`.

    `Conv1D` (transformers/pytorch_utils.py, 5.23) is a linear layer with its weight transposed.
    """
    weight = getattr(module, "weight", None)
    linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    return linear and weight is not None and weight.ndim == 2  # noqa: PLR2004


def is_norm(module: Module) -> bool:
    """Whether the module is a normalisation layer: one of torch's, or a class named `…Norm`."""
    return isinstance(module, _NORMS) or _NORM_CLASS.fullmatch(type(module).__name__) is not None


def embedding_weights(model: Module) -> set[Parameter]:
    """Return the weights of all embeddings."""
    return {
        cast("Parameter", module.weight)
        for module in model.modules()
        if isinstance(module, _EMBEDDINGS)
    }


def output_heads(model: Module) -> set[Module]:
    """Return the layers that turn features into predictions, where models tell them.

    They tell them by `get_output_embeddings()`, the method of Transformers' models, also inside of
    what has none of its own: a `LightningModule`, or `DistributedDataParallel`.
    """
    get = getattr(model, "get_output_embeddings", None)
    if callable(get):
        head = get()
        return {head} if isinstance(head, nn.Module) else set()
    return {head for child in model.children() for head in output_heads(child)}
