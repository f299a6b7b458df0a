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
        self._alive: dict[int, tuple[Callable[[], Any], int]] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._handles = [p.register_hook(self._arrives(i)) for i, p in enumerate(self._parameters)]  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def left(self) -> list[int]:
        """Return the bytes of each gradient that is there now."""
        return [size for storage, size in self._alive.values() if storage() is not None]

    def _arrives(self, index: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            self._alive[index] = weakref.ref(gradient.untyped_storage()), gradient.nbytes
            there = self.left()
            self.most = max(self.most, sum(there))
            self.most_at_once = max(self.most_at_once, len(there))

        return hook
