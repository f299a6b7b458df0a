"""Tell linear layers, norms, embeddings, experts and output heads apart."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from hub.errors import HubError
from hub.groups.walk import PARALLEL, walk_of

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
    named = walk_of(model).parameters
    found = [(name, p) for name, p in named if p.requires_grad]
    if not found:
        frozen = bool(named)
        raise HubError(
            "all parameters of the model are frozen" if frozen else "the model has no parameters",
            where=type(model).__name__,
            fix="set requires_grad=True on the parameters to train" if frozen else "",
        )
    lazy = next((name for name, p in named if nn.parameter.is_lazy(p)), None)
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
    return walk_of(model).plain


def names_by_id(model: Module) -> dict[int, str]:
    """Return the plain name of each parameter by its identity."""
    return {id(parameter): name for name, parameter in walk_of(model).parameters}


def without_wrappers(model: Module) -> Module:
    """Return the model inside the wrappers of `torch.compile` and data parallelism."""
    while True:
        if isinstance(model, PARALLEL):
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
    linear = isinstance(module, nn.Linear) or "Conv1D" in _class_names(type(module))
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
    cls: Any = type(module)  # mypy 1 takes it for a module, whose hash is not a class's
    return _is_norm_class(cls)


@lru_cache(maxsize=1024)
def _is_norm_class(cls: type[Module]) -> bool:
    return issubclass(cls, _NORMS) or _NORM_CLASS.fullmatch(cls.__name__) is not None


def is_convolution(module: Module) -> bool:
    """Whether the module is one of torch's convolutions, of any number of dimensions."""
    return isinstance(module, _CONVOLUTION)


def is_experts(module: Module) -> bool:
    """Whether the module is named for its experts: `MixtralExperts`, `GroupedExperts`.

    Such a module of Transformers 5 has the weights of all its experts in one 3-D parameter each.
    """
    return any(_EXPERTS.search(name) for name in _class_names(type(module)))


def transposed_weights(model: Module) -> set[Parameter]:
    """Return the weights that are stored as (in, out) instead of (out, in).

    These are the weights of Transformers' `Conv1D`, and the stacks of the experts that it marks as
    `is_transposed` (integrations/moe.py, 5.23) or whose class is known to be so.
    """
    modules = [module for _, module in walk_of(model).modules]
    classes = {cls for cls in set(map(type, modules)) if _may_store_in_out(cls)}
    return {
        parameter
        for module in modules
        if type(module) in classes and _stores_in_out(module)
        for parameter in module._parameters.values()  # noqa: SLF001 - reads no parametrized one
        if parameter is not None and parameter.ndim == 2 + is_experts(module)
    }


def _may_store_in_out(cls: type[Module]) -> bool:
    names = _class_names(cls)
    return not _AS_IN_OUT.isdisjoint(names) or any(map(_EXPERTS.search, names))


def _stores_in_out(module: Module) -> bool:
    marked = getattr(module, "is_transposed", False) is True and is_experts(module)
    return marked or not _AS_IN_OUT.isdisjoint(_class_names(type(module)))


def _class_names(cls: type[Module]) -> list[str]:
    return [each.__name__ for each in cls.__mro__]


def embedding_weights(model: Module) -> set[Parameter]:
    """Return the weights of all embeddings, except parametrized ones."""
    walk = walk_of(model)
    if not walk.has(_EMBEDDINGS):
        return set()
    modules = (module for _, module in walk.modules)
    weights = (_own_weight(module) for module in modules if isinstance(module, _EMBEDDINGS))
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
