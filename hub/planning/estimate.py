"""`hub.estimate`: the memory that training takes, without allocating it."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, replace
from threading import RLock
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter

from hub import backend
from hub.errors import HubError, UnsupportedError
from hub.measuring import plain_tensors, tensor_bytes
from hub.planning.call import takes_build_arguments
from hub.planning.prepare import prepare
from hub.planning.readiness import model_findings
from hub.quiet import no_warnings
from hub.running.attach import optimizers_of
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor
    from torch.nn import Module

    from hub.planning.call import BuildCall
    from hub.planning.prepare import Prepared
    from hub.spec import ParameterGroup

_one_at_a_time = RLock()
"""Held while compilation is off, which is a process-wide setting."""


@dataclass(frozen=True)
class Estimate:
    """Memory in bytes, once training is under way."""

    parameters: int
    """Of all parameters, frozen ones included; a tied one counts once."""
    gradients: int
    """Of all trainable parameters; of only the two largest if each gradient is used and freed in
    the backward pass, without accumulation over micro-batches."""
    state: int
    """Of what the optimizer keeps, after its first step."""
    evaluation: int = 0
    """Of the training weights that are kept while a model has others for evaluation
    (ScheduleFree); a state dict of the model then takes as much."""

    @property
    def total(self) -> int:
        """The sum; activations come on top."""
        return self.parameters + self.gradients + self.state + self.evaluation


@takes_build_arguments
def estimate(call: BuildCall) -> Estimate:
    """Return the memory that training a model with an optimizer takes, allocating none of it.

    The optimizer is built and takes a step on fake tensors, which have shapes but no values. If its
    code reads values (8-bit state, APOLLO, StableAdamW), one real tensor of each shape is created
    on the CPU instead, one at a time.

    The arguments are those of `hub.build`. The model may be on the meta device; it is not changed.

    Raises:
        UnsupportedError: The optimizer cannot take a step on the CPU, or needs the real model.
        HubError: As `hub.build` does, except for a model that is on the meta device or that
            another optimizer holds.
    """
    prepared = prepare(call)
    refusal = _refusal(prepared)
    if refusal is not None:
        raise refusal
    each = [tensor_bytes(p) for group in prepared.context.groups for _, p in group.parameters]
    return Estimate(
        parameters=sum(tensor_bytes(p) for p in call.model.parameters()),
        gradients=_gradients(prepared, each),
        state=_state(prepared),
        evaluation=sum(each) if Trait.TRAIN_EVAL_MODES in prepared.spec.traits else 0,
    )


def _refusal(prepared: Prepared) -> HubError | None:
    """Return what the build would raise for a materialized model that no other optimizer holds."""
    in_the_way = list(model_findings(list(prepared.context.named_parameters())))
    return prepared.plan.without(in_the_way).refusal


def _gradients(prepared: Prepared, each: list[int]) -> int:
    freed = Trait.STEPS_IN_BACKWARD in prepared.spec.traits
    at_once = freed and prepared.plan.gradient_accumulation_steps == 1
    return sum(sorted(each)[-2:] if at_once else each)


def _state(prepared: Prepared) -> int:
    """Return the bytes of state, with compilation off: compiled code crashes on fake tensors."""
    backend.load("torch._dynamo")  # imported here, so that fake tensors do not import it
    with _one_at_a_time, torch.compiler.set_stance("force_eager"):
        try:
            return _on_fake_tensors(prepared)
        except Exception:  # noqa: BLE001 - code that reads a fake tensor may raise anything
            return _one_of_each_shape(prepared)


def _on_fake_tensors(prepared: Prepared) -> int:
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _state_after_a_step(prepared, prepared.context.groups, real=None).total


def _one_of_each_shape(prepared: Prepared) -> int:
    embeddings = prepared.context.embeddings
    examples: dict[Any, tuple[ParameterGroup, str, Parameter]] = {}
    counts: Counter[Any] = Counter()
    for group in prepared.context.groups:
        for name, parameter in group.parameters:
            kind = (group.name, parameter.shape, parameter.dtype, name in embeddings)
            examples.setdefault(kind, (group, name, parameter))
            counts[kind] += 1
    try:
        states = {
            kind: _state_after_a_step(
                prepared,
                (replace(group, parameters=((name, example),)),),
                real={id(example)},
            )
            for kind, (group, name, example) in examples.items()
        }
        own = sum(counts[kind] * state.own for kind, state in states.items())
        shared = {path: size for state in states.values() for path, size in state.shared.items()}
        return own + sum(shared.values())
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


def _state_after_a_step(
    prepared: Prepared, groups: tuple[ParameterGroup, ...], real: set[int] | None
) -> _State:
    """Return the bytes of state after a step over copies of some groups' parameters.

    The copies belong to a copy of the model, so that a plugin finds the same modules there. Tensors
    in `real`, by identity, are on the CPU and the others on the meta device; None: all on the CPU.
    """
    model = prepared.context.model
    stand_ins: dict[int, Any] = {
        id(tensor): _stand_in(tensor, "cpu" if real is None or id(tensor) in real else "meta")
        for tensor in (*model.parameters(), *model.buffers())
    }
    context = replace(
        prepared.context,
        model=copy.deepcopy(model, {**stand_ins, **_kept(model)}),
        groups=tuple(
            replace(group, parameters=tuple((n, stand_ins[id(p)]) for n, p in group.parameters))
            for group in groups
        ),
    )
    with no_warnings():
        optimizer: Any = prepared.construct(context)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()
    return _State.of(optimizer)


def _kept(model: Module) -> dict[int, Any]:
    """Return, by identity, the optimizers that a model may hold and its copy shares."""
    return {id(optimizer): optimizer for optimizer, _ in optimizers_of(model.parameters())}


def _stand_in(tensor: Tensor, device: str) -> Tensor:
    values = torch.full(tensor.shape, 0.1, dtype=tensor.dtype, device=device)
    if isinstance(tensor, Parameter):
        return Parameter(values, requires_grad=tensor.requires_grad)
    return values


@dataclass(frozen=True)
class _State:
    """The bytes of an optimizer's state; a storage that several tensors share counts once."""

    own: int
    shared: Mapping[tuple[str, ...], int]
    """Of tensors that are also attributes of the optimizer, by their path there: one for all
    parameters, such as the quantization maps of bitsandbytes."""

    @property
    def total(self) -> int:
        return self.own + sum(self.shared.values())

    @staticmethod
    def of(optimizer: Any) -> _State:
        pieces = {
            _place(piece): piece.nbytes
            for state in optimizer.state.values()
            for piece in plain_tensors(state)
        }
        shared = {
            path: pieces.pop(_place(tensor))
            for path, tensor in _attributes(optimizer)
            if _place(tensor) in pieces
        }
        return _State(sum(pieces.values()), shared)


def _place(tensor: Tensor) -> tuple[int, int]:
    """Identify the memory of a tensor; a fake one has a storage, but no address."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())  # noqa: SLF001


def _attributes(optimizer: Any) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Yield tensors that an optimizer has as attributes, directly or in a mapping, by path."""
    for name, value in vars(optimizer).items():
        if isinstance(value, torch.Tensor):
            yield (name,), value
        elif isinstance(value, dict) and name != "state":
            for key, item in value.items():
                if isinstance(item, torch.Tensor):
                    yield (name, str(key)), item
