"""A model made from named parameters, where the real one is not known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

from hub.errors import OptimArgsError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn import Module, Parameter

    from hub.groups.split import Named

_EMBEDDING = re.compile(r"(.*_)?emb(ed\w*)?|wte|wpe|shared|relative_attention_bias", re.IGNORECASE)
_HEAD = re.compile(
    r"(.*_)?(head|logits)|output(_layer)?|embed_out|classifier|score|qa_outputs", re.IGNORECASE
)
_NORM = re.compile(r"(.*_)?(\w*norm|ln)(_?\w)?", re.IGNORECASE)


class Head(nn.Module):
    """An output head, by its name: a pattern selects it, and "all-linear" does not."""


class Linear(nn.Linear):
    """A layer with a two-dimensional weight and any other name."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


class Embedding(nn.Embedding):
    """An embedding, by its name."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


def stand_in_of(named: Named) -> Module:
    """Return modules that own these parameters under these names.

    They show what names and shapes say about a model, and cannot run. A module with a 2-D `weight`
    is an embedding, an output head or a linear layer, by its name.

    Raises:
        OptimArgsError: A name has an empty part.
    """
    owned: dict[str, dict[str, Parameter]] = {"": {}}
    for name, parameter in named:
        if not all(name.split(".")):
            raise OptimArgsError(
                f"{shown(name)} is not the name of a parameter",
                where="params",
                fix="pass model.named_parameters()",
            )
        owner, _, key = name.rpartition(".")
        owned.setdefault(owner, {})[key] = parameter
    root = nn.Module()
    for owner, parameters in owned.items():
        module = _place(root, owner, _kind(owner, parameters))
        # `register_parameter` refuses names that no model has together, such as "a" and "a.b".
        module._parameters.update(parameters)  # noqa: SLF001
    return root


def _kind(name: str, parameters: Mapping[str, Parameter]) -> type[Module]:
    weight, last = parameters.get("weight"), name.rpartition(".")[2]
    if not name or weight is None or weight.ndim != 2 or _NORM.fullmatch(last):  # noqa: PLR2004
        return nn.Module
    if _HEAD.fullmatch(last):
        return Head
    return Embedding if _EMBEDDING.fullmatch(last) else Linear


def _place(root: Module, name: str, kind: type[Module]) -> Module:
    """Put a new module where its name says, and return it; the root for an empty name."""
    if not name:
        return root
    parent = root
    *path, last = name.split(".")
    for part in path:
        inner = parent._modules.get(part)  # noqa: SLF001 - as above
        if inner is None:
            inner = parent._modules[part] = nn.Module()  # noqa: SLF001
        parent = inner
    module, before = kind(), parent._modules.get(last)  # noqa: SLF001
    if before is not None:
        module._modules.update(before._modules)  # noqa: SLF001
    parent._modules[last] = module  # noqa: SLF001
    return module
