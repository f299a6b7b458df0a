"""`hub.estimate`: the memory that training takes, without allocating it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.planning.call import takes_estimate_arguments
from hub.planning.prepare import prepare
from hub.planning.readiness import model_findings
from hub.planning.shares import share_here, shares_on_mesh
from hub.planning.state_size import StateSizes
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hub.errors import HubError
    from hub.planning.call import EstimateCall
    from hub.planning.shares import Share
    from hub.planning.single import Prepared


@dataclass(frozen=True)
class Estimate:
    """Memory in bytes, once training is under way: of this process, or of the busiest rank."""

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
    exchange: int = 0
    """Of the buffers in which a step moves sharded parameters that are updated as a whole; at
    most, apart from what the update itself takes."""

    @property
    def total(self) -> int:
        """The sum; activations, and the layers that FSDP2 gathers, come on top."""
        return self.parameters + self.gradients + self.state + self.evaluation + self.exchange


@takes_estimate_arguments
def estimate(call: EstimateCall) -> Estimate:  # noqa: D417 - the decorator spreads `call`
    """Return the memory that training a model with an optimizer takes, allocating none of it.

    The optimizer is built and takes a step on fake tensors, which have shapes but no values. If its
    code reads values (8-bit state, APOLLO, StableAdamW), one real tensor of each shape is created
    on the CPU instead, one at a time.

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
    prepared = prepare(call)
    refusal = _refusal(prepared)
    if refusal is not None:
        raise refusal
    ranks = zip(*(_estimates(part, call) for part in prepared.parts), strict=True)
    return max(map(_together, ranks), key=lambda found: found.total)


def _estimates(prepared: Prepared, call: EstimateCall) -> Iterator[Estimate]:
    """Yield the memory that each rank takes for one optimizer, and for the whole model."""
    if call.mesh is None:
        shares: Iterable[Share] = [share_here(prepared, call.model)]
    else:
        shares = shares_on_mesh(prepared, call.model, call.mesh)
    state = StateSizes(prepared)
    switches = Trait.TRAIN_EVAL_MODES in prepared.spec.traits
    for share in shares:
        yield Estimate(
            parameters=share.parameters,
            gradients=_gradients(prepared, share.trained),
            state=state.total(share.stepped),
            evaluation=sum(share.trained) if switches else 0,
            exchange=share.exchange,
        )


def _together(members: Sequence[Estimate]) -> Estimate:
    """Return the memory of several optimizers of one model, which step one after another."""
    return Estimate(
        parameters=members[0].parameters,
        gradients=sum(member.gradients for member in members),
        state=sum(member.state for member in members),
        evaluation=sum(member.evaluation for member in members),
        exchange=max(member.exchange for member in members),
    )


def _refusal(prepared: Prepared) -> HubError | None:
    """Return what the build would raise for a materialized model that no other optimizer holds."""
    in_the_way = list(model_findings(list(prepared.context.named_parameters())))
    return prepared.plan.without(in_the_way).refusal


def _gradients(prepared: Prepared, each: Sequence[int]) -> int:
    freed = Trait.STEPS_IN_BACKWARD in prepared.spec.traits
    at_once = freed and prepared.plan.gradient_accumulation_steps == 1
    return sum(sorted(each)[-2:] if at_once else each)
