"""`hub.estimate`: the memory that training takes, without allocating it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from hub.planning.call import takes_estimate_arguments
from hub.planning.offload import StateBytes, offloaded
from hub.planning.precision import rounding_of
from hub.planning.prepare import prepare
from hub.planning.readiness import model_findings
from hub.planning.shares import share_here, shares_on_mesh
from hub.planning.state_size import StateSizes
from hub.running.buckets.rounding import ROUNDED
from hub.running.buckets.sizes import bucket_slices
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hub.errors import HubError
    from hub.planning.call import EstimateCall
    from hub.planning.shares import Share
    from hub.planning.single import Prepared
    from hub.planning.state_size import Known


@dataclass(frozen=True)
class Estimate:
    """Memory in bytes, once training is under way: of this process, or of the busiest rank."""

    parameters: int
    """Of all parameters, frozen ones included; a tied one counts once."""
    gradients: int
    """Of all trainable parameters; of only the two largest if each gradient is used and freed in
    the backward pass, without accumulation over micro-batches."""
    state: int
    """Of what the optimizer keeps, after its first step. With `offload`, of what is on the device
    in a step at most: the state of three buckets, one of which comes while one is stepped and one
    leaves; of two parameters, if they are updated in the backward pass; or all of it, if the
    optimizer updates all parameters together. A model on the CPU counts as if it were not."""
    evaluation: int = 0
    """Of the training weights that are kept while a model has others for evaluation
    (ScheduleFree); a state dict of the model then takes as much."""
    exchange: int = 0
    """Of the buffers in which a step moves sharded parameters that are updated as a whole; at
    most, apart from what the update itself takes."""

    copies: int = 0
    """Of the fp32 copies of weights and gradients that a step makes with `rounding`; at most."""
    host: int = 0
    """Of the state that is in the host's memory with `offload`. It stays allocated there while its
    copy is on the device. Not in `total`."""

    @property
    def total(self) -> int:
        """The sum; activations, and the layers that FSDP2 gathers, come on top."""
        return (
            self.parameters
            + self.gradients
            + self.state
            + self.evaluation
            + self.exchange
            + self.copies
        )


@takes_estimate_arguments
def estimate(call: EstimateCall) -> Estimate:  # noqa: D417 - the decorator spreads `call`
    """Return the memory that training a model with an optimizer takes, allocating none of it.

    The optimizer is built and takes a step on fake tensors, which have shapes but no values. If its
    code reads values (8-bit state, APOLLO, StableAdamW), it is given some, provided that small
    tensors then have the same state as real ones; else one real tensor of each shape is created on
    the CPU instead, one at a time.

    The arguments are those of `hub.build`, and `mesh`. The model may be on the meta device; it is
    not changed. Of a model that FSDP2 shards, only this rank's part is counted.

    Args:
        mesh: Count what the busiest rank takes if FSDP2 shards all of the model: `(8,)` is over 8
            ranks, and `(2, 4)` is 2 replicas over 4 ranks each (HSDP).

    Raises:
        OptimArgsError: `mesh` is not such a shape.
        UnsupportedError: The optimizer cannot take a step on the CPU, or needs the real model; or
            it cannot train sharded parameters.
        HubError: As `hub.build` does, except for a model that is on the meta device or that
            another optimizer holds.
    """
    return estimate_prepared(prepare(call), call, {})


def estimate_prepared(prepared: Prepared, call: EstimateCall, known: Known) -> Estimate:
    """Return what `estimate` does, from what was measured before if possible.

    Args:
        prepared: What its call asks for.
        call: The call.
        known: What was measured for the same model with the same targets and precision; takes
            what is measured now.
    """
    refusal = _refusal(prepared)
    if refusal is not None:
        raise refusal
    parts = [(part, StateSizes(part, known)) for part in prepared.parts]
    ranks = zip(*(_shares(part, call) for part in prepared.parts), strict=True)
    return max((_estimate(parts, shares) for shares in ranks), key=lambda found: found.total)


def _shares(prepared: Prepared, call: EstimateCall) -> Iterable[Share]:
    """Return what each rank keeps for one optimizer, and of the whole model."""
    if call.mesh is None:
        return [share_here(prepared, call.model)]
    return shares_on_mesh(prepared, call.model, call.mesh)


def _estimate(parts: Sequence[tuple[Prepared, StateSizes]], shares: Sequence[Share]) -> Estimate:
    """Return the memory that one rank takes for all optimizers, which step one after another."""
    each = [(part, sizes, share) for (part, sizes), share in zip(parts, shares, strict=True)]
    states = [_state(*one) for one in each]
    return Estimate(
        parameters=shares[0].parameters,
        gradients=_gradients([(part, share) for part, _, share in each]),
        state=sum(there.staying for there in states) + max(there.passing for there in states),
        evaluation=sum(
            sum(share.trained)
            for part, _, share in each
            if Trait.TRAIN_EVAL_MODES in part.spec.traits
        ),
        exchange=max(share.exchange for share in shares),
        copies=max(_copies(part, share) for part, _, share in each),
        host=sum(there.host for there in states),
    )


def _state(prepared: Prepared, sizes: StateSizes, share: Share) -> StateBytes:
    """Return where the state of one optimizer is."""
    own, shared = sizes.each(share.stepped)
    if getattr(prepared.optim_args, "offload", None) is None:
        return StateBytes(sum(own.values()) + shared, 0, 0)
    return offloaded(prepared.spec, own, shared, [prod(share.stepped[name]) for name in own])


def _copies(prepared: Prepared, share: Share) -> int:
    """Return the bytes of the fp32 copies of the largest bucket, and of their gradients."""
    if rounding_of(prepared.optim_args) is None:
        return 0
    sizes = [
        prod(share.stepped[name]) if parameter.dtype in ROUNDED else 0
        for name, parameter in prepared.context.named_parameters()
        if name in share.stepped
    ]
    if Trait.STEPS_IN_BACKWARD in prepared.spec.traits:
        elements = max(sizes, default=0)
    elif Trait.PER_PARAMETER in prepared.spec.traits:
        elements = max((sum(sizes[part]) for part in bucket_slices(sizes)), default=0)
    else:
        elements = sum(sizes)
    return elements * 2 * torch.float32.itemsize


def _refusal(prepared: Prepared) -> HubError | None:
    """Return what the build would raise for a materialized model that no other optimizer holds."""
    in_the_way = list(model_findings(list(prepared.context.named_parameters())))
    return prepared.plan.without(in_the_way).refusal


def _gradients(each: Sequence[tuple[Prepared, Share]]) -> int:
    """Return the bytes of all gradients, of those that are freed one by one only of two."""
    kept: list[int] = []
    freed: list[int] = []
    for part, share in each:
        at_once = part.plan.gradient_accumulation_steps == 1
        in_backward = Trait.STEPS_IN_BACKWARD in part.spec.traits
        (freed if in_backward and at_once else kept).extend(share.trained)
    return sum(kept) + sum(sorted(freed)[-2:])
