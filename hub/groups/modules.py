"""Tell linear layers, norms, embeddings, experts and output heads apart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from torch import nn

from hub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable

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
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_WRAPPED = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_CONVOLUTION = nn.modules.conv._ConvNd  # noqa: SLF001 - all dimensions, transposed ones too
_EXPERTS = re.compile(r"Experts(?![a-z])")
_AS_IN_OUT = {"Conv1D", "Llama4TextExperts"}
"""Classes of Transformers (5.23) that multiply by `weight` as it is, so store it as (in, out)."""


def trainable_parameters(model: Module) -> list[tuple[str, Parameter]]:
    """Return each parameter that requires a gradient once, under its first name.

    Raises:
        HubError: There are none, or a lazy module has not created its own yet.
    """
    plain = plain_names(model)
    found = [(plain(name), p) for name, p in model.named_parameters() if p.requires_grad]
    if not found:
        frozen = next(model.parameters(), None) is not None
        raise HubError(
            "all parameters of the model are frozen" if frozen else "the model has no parameters",
            where=type(model).__name__,
            fix="set requires_grad=True on the parameters to train" if frozen else "",
        )
    lazy = next((name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)), None)
    if lazy is not None:
        raise HubError(
            f"{lazy} has no shape yet",
            where=type(model).__name__,
            fix="run the model on an example batch first, to initialize its lazy parameters",
        )
    return found


def plain_names(model: Module) -> Callable[[str], str]:
    """Return a function that removes wrappers from dotted names of this model.

    A checkpoint then fits both the wrapped and the plain model. The function removes the names
    under which `torch.compile`, FSDP1 and `checkpoint_wrapper` keep a module, wherever they occur,
    and the `module` of data-parallel wrappers. A user's module called `module` keeps its name.
    """
    inside = [
        f"{name}.module." if name else "module."
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _PARALLEL)
    ]

    def plain(name: str) -> str:
        dotted = f"{name}."
        for prefix in reversed(inside):  # the innermost first
            if dotted.startswith(prefix):
                dotted = prefix.removesuffix("module.") + dotted.removeprefix(prefix)
        return _WRAPPED.sub("", dotted).removesuffix(".")

    return plain


def names_by_id(model: Module) -> dict[int, str]:
    """Return the plain name of each parameter by its identity."""
    plain = plain_names(model)
    return {id(parameter): plain(name) for name, parameter in model.named_parameters()}


def without_wrappers(model: Module) -> Module:
    """Return the model inside the wrappers of `torch.compile` and data parallelism."""
    while True:
        if isinstance(model, _PARALLEL):
            model = cast("Module", model.module)
        elif "_orig_mod" in model._modules:  # noqa: SLF001 - its class imports torch.compile
            model = cast("Module", model._modules["_orig_mod"])  # noqa: SLF001
        else:
            return model


def is_linear(module: Module) -> bool:
    """Whether the module multiplies by a 2-D `weight`: `nn.Linear`, or GPT-2's `Conv1D`.

    `Conv1D` (transformers/pytorch_utils.py, 5.23) is a linear layer with its weight transposed.
    A parametrized layer counts too, although its weight is not a parameter; see `own_matrix`.
    """
    linear = isinstance(module, nn.Linear) or "Conv1D" in _class_names(module)
    return linear and (_own_weight(module) is None or own_matrix(module) is not None)


def own_matrix(module: Module) -> Parameter | None:
    """Return a module's 2-D parameter `weight`, or None.

    A parametrized layer (`torch.nn.utils.parametrizations`, the older `weight_norm`) has none: its
    `weight` is computed from other parameters whenever it is read.
    """
    weight = _own_weight(module)
    return weight if weight is not None and weight.ndim == 2 else None  # noqa: PLR2004


def _own_weight(module: Module) -> Parameter | None:
    # Reading `module.weight` computes a parametrized one, which in training changes the buffers of
    # `spectral_norm` (torch 2.13).
    return module._parameters.get("weight")  # noqa: SLF001


def is_norm(module: Module) -> bool:
    """Whether the module is a normalization layer: one of torch's, or a class named `…Norm`."""
    return isinstance(module, _NORMS) or _NORM_CLASS.fullmatch(type(module).__name__) is not None


def is_convolution(module: Module) -> bool:
    """Whether the module is one of torch's convolutions, of any number of dimensions."""
    return isinstance(module, _CONVOLUTION)


def is_experts(module: Module) -> bool:
    """Whether the module is named for its experts: `MixtralExperts`, `GroupedExperts`.

    Such a module of Transformers 5 has the weights of all its experts in one 3-D parameter each.
    """
    return any(_EXPERTS.search(name) for name in _class_names(module))


def transposed_weights(model: Module) -> set[Parameter]:
    """Return the weights that are stored as (in, out) instead of (out, in).

    These are the weights of Transformers' `Conv1D`, and the stacks of the experts that it marks as
    `is_transposed` (integrations/moe.py, 5.23) or whose class is known to be so.
    """
    return {
        parameter
        for module in model.modules()
        if _stores_in_out(module)
        for parameter in module._parameters.values()  # noqa: SLF001 - reads no parametrized one
        if parameter is not None and parameter.ndim == 2 + is_experts(module)
    }


def _stores_in_out(module: Module) -> bool:
    marked = getattr(module, "is_transposed", False) is True and is_experts(module)
    return marked or not _AS_IN_OUT.isdisjoint(_class_names(module))


def _class_names(module: Module) -> list[str]:
    return [cls.__name__ for cls in type(module).__mro__]


def embedding_weights(model: Module) -> set[Parameter]:
    """Return the weights of all embeddings, except parametrized ones."""
    weights = (_own_weight(module) for module in model.modules() if isinstance(module, _EMBEDDINGS))
    return {weight for weight in weights if weight is not None}


def output_heads(model: Module) -> set[Module]:
    """Return the layers that turn features into predictions, if the model declares them.

    Transformers' models do so by `get_output_embeddings()`. In a module without this method, such
    as a `LightningModule` or `DistributedDataParallel`, the children are searched for it.
    """
    get = getattr(model, "get_output_embeddings", None)
    if callable(get):
        head = get()
        return {head} if isinstance(head, nn.Module) else set()
    return {head for child in model.children() for head in output_heads(child)}
