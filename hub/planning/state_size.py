"""How many bytes of state an optimizer keeps for parameters of given shapes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Parameter

from hub import backend
from hub.errors import HubError, UnsupportedError
from hub.measuring import attribute_tensors, plain_tensors
from hub.planning.fake import fake_tensors
from hub.planning.precision import rounding_of
from hub.planning.skeleton import with_tensors
from hub.quiet import no_warnings
from hub.running.buckets.rounding import ROUNDED

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping

    from torch import Tensor

    from hub.planning.single import Prepared
    from hub.spec import ParameterGroup

    Shape = tuple[int, ...]
    Tensors = Mapping[int, Tensor]
    Known = dict[Hashable, dict[Any, tuple[int, Mapping[tuple[str, ...], int]]]]
    """For steps that are alike: by kind of parameter, the bytes of one, and those of what it
    shares with others."""

MOST_OF = defaultdict(lambda: 32, {1: 1 << 14, 2: 1 << 7})
"""The longest side of a small tensor, by its number of dimensions."""
_one_at_a_time = RLock()
"""Held while compilation is off, which is a process-wide setting."""


@dataclass(frozen=True)
class _Size:
    """The bytes of the state of parameters; a storage that several tensors share counts once."""

    own: Mapping[str, int]
    """Of each parameter, by name."""
    shared: Mapping[tuple[str, ...], int]
    """Of tensors that are also attributes of the optimizer, by their path there: one for all
    parameters, such as the quantization maps of bitsandbytes."""


class StateSizes:
    """Measures the state of an optimizer after its first step, without allocating it.

    Parameters of one group, dtype and shape have state of the same size, so one of them steps for
    all.

    Args:
        prepared: The plan and its model.
        known: What was measured before, of this model with the same targets and precision.
    """

    def __init__(self, prepared: Prepared, known: Known) -> None:
        self._prepared = prepared
        self._known = known.setdefault(_steps_alike(prepared), {})
        embeddings = prepared.context.embeddings
        self._kinds = {
            name: (group.name, parameter.dtype, name in embeddings)
            for group in prepared.context.groups
            for name, parameter in group.parameters
        }

    def each(self, shapes: Mapping[str, Shape]) -> tuple[dict[str, int], int]:
        """Return the bytes of state that one process keeps for each parameter, and for all.

        Args:
            shapes: By name. All other parameters are left out.

        Raises:
            UnsupportedError: The optimizer cannot take a step on the CPU, or needs the real model.
        """
        kinds = {name: (*self._kinds[name], shape) for name, shape in shapes.items()}
        examples: dict[Any, str] = {}
        for name, kind in kinds.items():
            if kind not in self._known:
                examples.setdefault(kind, name)
        if examples:
            self._measure({name: shapes[name] for name in examples.values()}, kinds)
        shared = {
            path: size for kind in kinds.values() for path, size in self._known[kind][1].items()
        }
        bits = self._bits(shapes)
        own = {name: self._known[kind][0] + bits.get(name, 0) for name, kind in kinds.items()}
        return own, sum(shared.values())

    def _bits(self, shapes: Mapping[str, Shape]) -> dict[str, int]:
        """Return the bytes that weights lack to be fp32, which `rounding="split"` keeps."""
        if rounding_of(self._prepared.optim_args) != "split":
            return {}
        named = self._prepared.context.named_parameters()
        return {n: 2 * prod(shapes[n]) for n, p in named if n in shapes and p.dtype in ROUNDED}

    def _measure(self, shapes: Mapping[str, Shape], kinds: Mapping[str, Any]) -> None:
        """Step these parameters, with compilation off: compiled code crashes on fake tensors."""
        backend.load("torch._dynamo")  # imported here, so that fake tensors do not import it
        with _one_at_a_time, torch.compiler.set_stance("force_eager"):
            for size in _sizes(self._prepared, shapes):
                for name, own in size.own.items():
                    self._known[kinds[name]] = own, size.shared


def _steps_alike(prepared: Prepared) -> Hashable:
    """Return what two plans have in common whose steps make the same state."""
    spec = prepared.spec.eager_spec or prepared.spec
    own = spec.own_arguments or spec.arguments
    values = {key: getattr(prepared.optim_args, key) for key in own.model_fields}
    return spec.name, prepared.label, repr(values), rounding_of(prepared.optim_args) is None


def _sizes(prepared: Prepared, shapes: Mapping[str, Shape]) -> list[_Size]:
    # Made here: among fake tensors, those that take no step would take most of the time.
    still = {
        id(tensor): _stand_in(tensor, "meta")
        for tensor in (*prepared.context.model.parameters(), *prepared.context.model.buffers())
    }
    try:
        with fake_tensors():
            return [_after_a_step(prepared, shapes, still)]
    except Exception:  # noqa: BLE001 - code that reads a fake tensor may raise anything
        found = _of_any_value(prepared, shapes, still)
        return _one_by_one(prepared, shapes, still) if found is None else [found]


def _of_any_value(prepared: Prepared, shapes: Mapping[str, Shape], still: Tensors) -> _Size | None:
    """Return what code that reads values keeps, None if values may matter or are all there is."""
    small = {name: _small(shape) for name, shape in shapes.items()}
    if small == shapes:
        return None  # then real tensors are as fast
    try:
        real = _after_a_step(prepared, small, still)
        with fake_tensors(any_value=True):
            if _after_a_step(prepared, small, still) != real:
                return None
            return _after_a_step(prepared, shapes, still)
    except Exception:  # noqa: BLE001 - as above
        return None


def _small(shape: Shape) -> Shape:
    """Return a shape whose tensor steps in no time, and is large enough to be quantized."""
    return tuple(min(side, MOST_OF[len(shape)]) for side in shape)


def _one_by_one(prepared: Prepared, shapes: Mapping[str, Shape], still: Tensors) -> list[_Size]:
    try:
        return [_after_a_step(prepared, {name: s}, still) for name, s in shapes.items()]
    except HubError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"the memory of {prepared.plan.optimizer} cannot be estimated here: "
            f"{type(error).__name__}: {error}",
            where=prepared.plan.optimizer,
            fix="build it, and look at optimizer.state",
            plugin=prepared.plan.distribution,
        ) from error


def _after_a_step(prepared: Prepared, shapes: Mapping[str, Shape], still: Tensors) -> _Size:
    """Return the bytes of state after a step over stand-ins for some parameters, on the CPU.

    They belong to a copy of the model, so that a plugin finds the same modules there.

    Args:
        prepared: The plan and its model.
        shapes: Of the parameters, by name.
        still: What stands for the model's other parameters, and for its buffers, by identity.
    """
    context = prepared.context
    rounding = rounding_of(prepared.optim_args)
    stand_ins = {
        **still,
        **{
            id(parameter): _stand_in(parameter, "cpu", shapes[name], rounding)
            for name, parameter in context.named_parameters()
            if name in shapes
        },
    }
    groups = (_with_stand_ins(group, stand_ins, shapes) for group in context.groups)
    copied = replace(
        context,
        model=with_tensors(context.model, stand_ins),
        groups=tuple(group for group in groups if group.parameters),
    )
    with no_warnings():
        optimizer: Any = prepared.construct(copied)
        for parameter in copied.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()
    return _size(optimizer, {id(p): name for name, p in copied.named_parameters()})


def _with_stand_ins(
    group: ParameterGroup, stand_ins: Mapping[int, Any], names: Collection[str]
) -> ParameterGroup:
    chosen = tuple((n, stand_ins[id(p)]) for n, p in group.parameters if n in names)
    return replace(group, parameters=chosen)


def _stand_in(
    tensor: Tensor, device: str, shape: Shape | None = None, rounding: str | None = None
) -> Tensor:
    size = tensor.shape if shape is None else shape
    dtype = torch.float32 if rounding and tensor.dtype in ROUNDED else tensor.dtype
    values = torch.full(size, 0.1, dtype=dtype, device=device)
    if isinstance(tensor, Parameter):
        return Parameter(values, requires_grad=tensor.requires_grad)
    return values


def _size(optimizer: Any, names: Mapping[int, str]) -> _Size:
    owner: dict[tuple[int, int], str] = {}
    pieces: dict[tuple[int, int], int] = {}
    for parameter, state in optimizer.state.items():
        for piece in plain_tensors(state):
            owner[_place(piece)], pieces[_place(piece)] = names[id(parameter)], piece.nbytes
    shared = {
        tuple(map(str, path)): pieces.pop(_place(tensor))
        for path, tensor in attribute_tensors(optimizer)
        if _place(tensor) in pieces
    }
    own = dict.fromkeys(names.values(), 0)
    for place, size in pieces.items():
        own[owner[place]] += size
    return _Size(own, shared)


def _place(tensor: Tensor) -> tuple[int, int]:
    """Identify the memory of a tensor; a fake one has a storage, but no address."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())  # noqa: SLF001
