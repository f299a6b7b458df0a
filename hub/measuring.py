"""Measure the memory of tensors: of those in a value, and of gradients in a backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor
    from torch.utils.hooks import RemovableHandle


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors in a value; see `plain_tensors`."""
    return sum(tensor.nbytes for tensor in plain_tensors(value))


def plain_tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in a value that own memory.

    The search covers mappings, lists, tuples, objects, and tensors made of others: quantized ones,
    and a DTensor, which yields this rank's part.
    """
    items: Any
    if hasattr(value, "to_local"):
        items = [value.to_local()]
    elif hasattr(value, "__tensor_flatten__"):
        items = [getattr(value, name) for name in value.__tensor_flatten__()[0]]
    elif isinstance(value, torch.Tensor):
        yield value
        return
    elif isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, list | tuple):
        items = value
    else:
        items = list(vars(value).values()) if hasattr(value, "__dict__") else []
    for item in items:
        yield from plain_tensors(item)


def attribute_tensors(holder: Any) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """Yield tensors that an optimizer has as attributes, directly or in a mapping, by path."""
    for name, value in vars(holder).items():
        if isinstance(value, torch.Tensor):
            yield (name,), value
        elif isinstance(value, dict) and name != "state":
            for key, item in value.items():
                if isinstance(item, torch.Tensor):
                    yield (name, key), item


def local_part(tensor: Any) -> Tensor:
    """Return this rank's part of a DTensor, and any other tensor as it is."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


class GradientMeter:
    """Count the storages that autograd turns into `.grad`, inside a `with` block.

    A hook on each parameter keeps a weak reference to the storage of the gradient that arrives, and
    counts the storages still alive then. So the meter sees gradients being freed, and keeps none
    alive.

    Args:
        parameters: The parameters whose gradients are counted.
    """

    most: int = 0
    """Bytes at the highest point."""
    most_at_once: int = 0
    """Gradients at that point."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._bytes = 0
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._handles = [p.register_hook(self._arrives(i)) for i, p in enumerate(self._parameters)]  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def left(self) -> list[int]:
        """Return the bytes of each gradient that is alive now."""
        return [size for _, size in self._alive.values()]

    def _arrives(self, index: int) -> Callable[[Tensor], None]:
        def gone(reference: weakref.ref[Any]) -> None:
            if index in self._alive and self._alive[index][0] is reference:
                self._bytes -= self._alive.pop(index)[1]

        def hook(gradient: Tensor) -> None:
            if index in self._alive:  # from an earlier pass; this one is added to it
                self._bytes -= self._alive[index][1]
            self._alive[index] = weakref.ref(gradient.untyped_storage(), gone), gradient.nbytes
            self._bytes += gradient.nbytes
            self.most = max(self.most, self._bytes)
            self.most_at_once = max(self.most_at_once, len(self._alive))

        return hook
