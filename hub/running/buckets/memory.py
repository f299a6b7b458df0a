"""Where state goes between steps: the host's memory, reached over streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage


class Memory(Protocol):
    """Moves storages between one device and the host."""

    def is_away(self, storage: UntypedStorage) -> bool:
        """Whether a storage is on the host."""

    def bring(self, storage: UntypedStorage) -> UntypedStorage:
        """Start to copy a storage of the host to the device, and return the copy."""

    def put(self, storage: UntypedStorage, home: UntypedStorage | None) -> UntypedStorage:
        """Start to copy a storage of the device to the host, and return the copy.

        Args:
            storage: On the device.
            home: Of the host and of the same size, to be overwritten; None: allocate it.
        """

    def mark(self) -> object:
        """Return what `wait` takes to wait for everything brought so far."""

    def wait(self, mark: object) -> None:
        """Make what is computed from now on wait until that has arrived."""

    def departure(self) -> object:
        """Return what `await_departure` takes to wait for everything put so far."""

    def await_departure(self, departure: object) -> None:
        """Wait until that is on the host, and its memory on the device is free."""

    def finish(self) -> None:
        """Wait until everything put so far is on the host."""


class SameMemory:
    """Of a CPU, whose memory is the host's: moves nothing."""

    def is_away(self, _: UntypedStorage) -> bool:
        """Nothing is."""
        return False

    def bring(self, storage: UntypedStorage) -> UntypedStorage:
        """Return the storage itself."""
        return storage

    def put(self, storage: UntypedStorage, _: UntypedStorage | None) -> UntypedStorage:
        """Return the storage itself."""
        return storage

    def mark(self) -> None:
        """Return nothing."""

    def wait(self, _: object) -> None:
        """Wait for nothing."""

    def departure(self) -> None:
        """Return nothing."""

    def await_departure(self, _: object) -> None:
        """Wait for nothing."""

    def finish(self) -> None:
        """Wait for nothing."""


class StreamMemory:
    """Of an accelerator: one stream copies from pinned memory, another one back to it.

    Args:
        device: The accelerator.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module: Any = torch.get_device_module(device)
        self._coming, self._going = (self._module.Stream(device) for _ in range(2))
        self._brought: list[Tensor] = []
        """Since the last mark."""
        self._departures: dict[int, Any] = {}
        """Of storages of the host that may still be written to, by identity."""

    def is_away(self, storage: UntypedStorage) -> bool:
        """Whether a storage is on the host."""
        return storage.device.type == "cpu"

    def bring(self, storage: UntypedStorage) -> UntypedStorage:
        """Copy it on the stream that comes, once it has arrived on the host."""
        departure = self._departures.get(storage._cdata)  # noqa: SLF001
        if departure is not None:
            self._coming.wait_event(departure)
        with self._module.stream(self._coming):
            copy = torch.empty(storage.nbytes(), dtype=torch.uint8, device=self._device)
            copy.copy_(as_bytes(storage), non_blocking=True)
        self._brought.append(copy)
        return copy.untyped_storage()

    def put(self, storage: UntypedStorage, home: UntypedStorage | None) -> UntypedStorage:
        """Copy it on the stream that goes, once what has been computed so far is done."""
        if home is None or not as_bytes(home).is_pinned():
            empty = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cpu", pin_memory=True)
            home = empty.untyped_storage()
        self._going.wait_stream(self._module.current_stream(self._device))
        leaving = as_bytes(storage)
        with self._module.stream(self._going):
            as_bytes(home).copy_(leaving, non_blocking=True)
        leaving.record_stream(self._going)
        self._departures[home._cdata] = self.departure()  # noqa: SLF001
        return home

    def mark(self) -> object:
        """Return an event on the stream that comes, and what has come until then."""
        brought, self._brought = self._brought, []
        return self._coming.record_event(), brought

    def wait(self, mark: Any) -> None:
        """Make the present stream wait for the event; it may use what has come."""
        arrival, brought = mark
        computing = self._module.current_stream(self._device)
        computing.wait_event(arrival)
        while brought:
            # Else its memory could be given away while that stream still works on it.
            brought.pop().record_stream(computing)

    def departure(self) -> Any:
        """Return an event on the stream that goes."""
        return self._going.record_event()

    def await_departure(self, departure: Any) -> None:
        """Wait for the event."""
        departure.synchronize()

    def finish(self) -> None:
        """Wait for both streams."""
        self._coming.synchronize()
        self._going.synchronize()
        self._departures.clear()


def memory_of(device: torch.device) -> Memory:
    """Return what moves state between a device and the host."""
    return SameMemory() if device.type == "cpu" else StreamMemory(device)


def as_bytes(storage: UntypedStorage) -> Tensor:
    """Return a tensor over all bytes of a storage."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
