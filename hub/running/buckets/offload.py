"""Keep the state of an optimizer in the host's memory, except while it is used.

What moves is the memory under the tensors: between steps a tensor of state stays the same object,
with data on the host. So it does not matter where a class keeps its tensors: in the state, in lists
and objects there, or inside of quantized and distributed tensors. Whole storages move, so tensors
that share one still do, and strides stay, by which matrix products round.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Parameter
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from hub.measuring import attribute_tensors, plain_tensors
from hub.running.buckets.memory import memory_of
from hub.running.buckets.sizes import bucket_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, UntypedStorage
    from torch.optim import Optimizer

    from hub.running.buckets.memory import Memory


@dataclass
class _Held:
    """A storage in the state of some parameters, and all tensors there that are on it."""

    storage: UntypedStorage
    device: torch.device
    """Of the parameters."""
    tensors: list[Tensor] = field(default_factory=list)
    owners: set[int] = field(default_factory=set)
    """The identities of these parameters."""


class Host:
    """Keeps the state of one optimizer on the host, except for parameters that step.

    Tensors without dimensions stay, because classes decide where they have their counts. So do
    tensors that are also attributes of the optimizer, such as the quantization maps of
    bitsandbytes, which all parameters share.
    """

    def __init__(self) -> None:
        self.memories: dict[torch.device, Memory] = {}
        """What moves state between each device and the host."""
        self._homes = WeakIdKeyDictionary()
        """The storage on the host that each tensor had; it is overwritten when the tensor goes."""
        self._marks: dict[int, object] = {}
        """What to wait for, by the identity of each parameter whose state is on its way."""
        self._leaving: deque[tuple[int, dict[torch.device, object]]] = deque()
        """What is on its way back: the elements of parameters, and what to wait for."""

    def fetch(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
        """Start to bring the state of these parameters to their devices."""
        coming = set()
        for held in _held(optimizer, parameters):
            memory = self._memory(held.device)
            if memory.is_away(held.storage):
                self._make_room()
                here = memory.bring(held.storage)
                coming.add(held.device)
                for tensor in held.tensors:
                    _put_on(tensor, here)
                    self._homes[tensor] = held.storage
        marks = {device: self._memory(device).mark() for device in coming}
        for parameter in parameters:
            if parameter.device in marks:
                self._marks[id(parameter)] = marks[parameter.device]

    def await_arrival(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
        """Wait until the state of these parameters is there."""
        self.fetch(optimizer, parameters)  # what has left since, with another parameter's state
        for parameter in parameters:
            if id(parameter) in self._marks:
                self._memory(parameter.device).wait(self._marks.pop(id(parameter)))

    def store(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
        """Start to put the state of these parameters on the host, also what is new."""
        self.await_arrival(optimizer, [p for p in parameters if id(p) in self._marks])
        going = set()
        for held in _held(optimizer, parameters):
            memory = self._memory(held.device)
            if not memory.is_away(held.storage):
                gone = memory.put(held.storage, self._home(held))
                going.add(held.device)
                for tensor in held.tensors:
                    _put_on(tensor, gone)
        if going:
            departures = {device: self._memory(device).departure() for device in going}
            self._leaving.append((sum(p.numel() for p in parameters), departures))

    def store_all(self, optimizer: Optimizer) -> None:
        """Put all state on the host, and wait for it."""
        self.store(optimizer, [p for group in optimizer.param_groups for p in group["params"]])
        self.end()

    def end(self) -> None:
        """Wait until everything is on the host."""
        for memory in self.memories.values():
            memory.finish()
        self._leaving.clear()

    def _make_room(self) -> None:
        """Wait until no more is leaving than about a bucket.

        Its memory is taken until then. A program is ahead of its GPU, and would otherwise bring
        bucket after bucket before the first one has left.
        """
        sizes = (elements for elements, _ in reversed(self._leaving))
        staying = next(bucket_slices(sizes)).stop
        while len(self._leaving) > staying:
            _, departures = self._leaving.popleft()
            for device, departure in departures.items():
                self._memory(device).await_departure(departure)

    def _home(self, held: _Held) -> UntypedStorage | None:
        homes = (self._homes.pop(tensor, None) for tensor in held.tensors)  # type: ignore[no-untyped-call]
        known: list[UntypedStorage] = [home for home in homes if home is not None]
        return next((home for home in known if home.nbytes() == held.storage.nbytes()), None)

    def _memory(self, device: torch.device) -> Memory:
        if device not in self.memories:
            self.memories[device] = memory_of(device)
        return self.memories[device]


def state_on_device(optimizer: Any, parameter: Tensor, device: torch.device) -> dict[str, Any]:
    """Return the state of a parameter with all tensors that have dimensions on a device.

    It is a copy if hub steps the optimizer in buckets; else it is there, and returned as it is.
    """
    if not optimizer.hub_stepping.in_buckets:
        state: dict[str, Any] = optimizer.state[parameter]
        return state
    host: Host | None = optimizer.hub_stepping.host
    if host is not None:
        host.end()
    return tree_map(partial(_to, device), dict(optimizer.state[parameter]))  # type: ignore[no-any-return]


def on_host(state: Any) -> Any:
    """Return the state of a parameter with all tensors that have dimensions on the host."""
    return tree_map(partial(_to, torch.device("cpu")), state)


def _to(device: torch.device, value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return value
    if value.device != device or not hasattr(value, "__tensor_flatten__"):
        return value.to(device)
    with torch.no_grad():
        is_there = all(part.device == device for part in plain_tensors(value))
    # The memory of its parts may be on the host, although it thinks that it is on the device.
    return value if is_there else value.to("cpu").to(device)


@torch.no_grad()
def _held(optimizer: Optimizer, parameters: Sequence[Tensor]) -> list[_Held]:
    """Return the storages in the state of these parameters that may move."""
    staying = {_key(tensor) for _, tensor in attribute_tensors(optimizer)}
    found: dict[int, _Held] = {}
    for parameter in parameters:
        if parameter not in optimizer.state:
            continue
        state = optimizer.state[parameter]
        _place_wrappers(state, parameter.device)
        for tensor in plain_tensors(state):
            key = _key(tensor)
            if not tensor.ndim or not tensor.numel() or key in staying or _is_weight(tensor):
                continue
            held = found.setdefault(key, _Held(tensor.untyped_storage(), parameter.device))
            held.owners.add(id(parameter))
            if not any(known is tensor for known in held.tensors):
                held.tensors.append(tensor)
    return [part for held in found.values() for part in _parts(held)]


def _is_weight(tensor: Tensor) -> bool:
    return isinstance(tensor, Parameter)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - two objects may be one storage


def _put_on(tensor: Tensor, storage: UntypedStorage) -> None:
    """Give a tensor the same elements of another storage."""
    empty = torch.empty(0, dtype=tensor.dtype, device=storage.device)
    tensor.data = empty.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def _parts(held: _Held) -> list[_Held]:
    """Return what moves: the storage, or one for each tensor if they are only beside each other.

    Tensors may be parts of one storage for several parameters, which come and go alone, or need
    just a part of it: some keep a slice of the singular vectors of their gradient.
    """
    used, size = sum(tensor.nbytes for tensor in held.tensors), held.storage.nbytes()
    if used > size or (used == size and (len(held.owners) == 1 or len(held.tensors) == 1)):
        return [held]
    for tensor in held.tensors:
        tensor.data = tensor.clone()  # keeps the strides, unless elements overlap or have gaps
    return [replace(held, storage=t.untyped_storage(), tensors=[t]) for t in held.tensors]


def _place_wrappers(state: Any, device: torch.device) -> None:
    """Move tensors that are made of others to a device if they think that they are elsewhere.

    They are, once loaded. Later only the memory of what they are made of moves.
    """
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        if isinstance(value, dict | list):
            _place_wrappers(value, device)
        elif hasattr(value, "__tensor_flatten__") and value.device != device:
            state[key] = value.to(device)
