"""How many bytes of gradients are there at once, measured."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from torch.utils.hooks import RemovableHandle


class GradientMeter:
    """Counts the storages that autograd makes `.grad` of, inside a `with` block.

    A hook on each parameter keeps a weak reference to the storage of what arrives, and counts those
    that are still alive then. So what frees gradients shows, and nothing is kept for it.

    Args:
        parameters: Whose gradients are counted.
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
        """Return the bytes of each gradient that is there now."""
        return [size for _, size in self._alive.values()]

    def _arrives(self, index: int) -> Callable[[Tensor], None]:
        def gone(reference: weakref.ref[Any]) -> None:
            if index in self._alive and self._alive[index][0] is reference:
                self._bytes -= self._alive.pop(index)[1]

        def hook(gradient: Tensor) -> None:
            if index in self._alive:  # of an earlier pass, to which this one is added
                self._bytes -= self._alive[index][1]
            self._alive[index] = weakref.ref(gradient.untyped_storage(), gone), gradient.nbytes
            self._bytes += gradient.nbytes
            self.most = max(self.most, self._bytes)
            self.most_at_once = max(self.most_at_once, len(self._alive))

        return hook
