"""Comparing models and files, for the checks and for the tests of plugins."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import plain_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters, frozen ones included, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Return the names of the parameters that are not, bit for bit, what they were."""
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def assert_same(model: nn.Module, other: nn.Module) -> None:
    """Hold two models to the same parameters, bit for bit.

    Raises:
        AssertionError: With the name of the first that differs.
    """
    for (name, p), (_, q) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        if not torch.equal(p, q):
            raise AssertionError(f"{name} differs by up to {(p - q).abs().max().item():.3g}")


def assert_close(model: nn.Module, other: nn.Module, tolerance: float) -> None:
    """Hold two models to the same parameters but for rounding.

    Args:
        model: One.
        other: The other.
        tolerance: Of each element, absolute and relative.

    Raises:
        AssertionError: With the name of the first parameter that differs more.
    """
    for (name, p), (_, q) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=tolerance, rtol=tolerance, msg=name)


def leaves(value: Any, path: str = "state_dict") -> Iterator[tuple[str, Any]]:
    """Yield what is in nested dicts, lists and tuples, no subclasses, each with where it is."""
    if type(value) in (dict, list, tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, f"{path}[{key!r}]")
    else:
        yield path, value


def storage_bytes(value: Any) -> int:
    """Return the bytes of the storages of all tensors in a value, shared ones once."""
    storages = [tensor.untyped_storage() for tensor in plain_tensors(value)]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())  # noqa: SLF001


def through_a_file(value: Any) -> Any:
    """Return what `torch.load(weights_only=True)` reads of what `torch.save` wrote."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
