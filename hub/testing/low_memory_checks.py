"""Checks of what hub adds to every optimizer, `offload` and `rounding`: P14."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from hub.errors import UnsupportedError
from hub.measuring import attribute_tensors, plain_tensors
from hub.running.buckets import sizes
from hub.running.buckets.rounding import BITS, ROUNDED, fp32_copy
from hub.running.steps import members_of
from hub.testing.comparing import through_a_file, weights
from hub.testing.expect import expect
from hub.testing.subject import DTYPES, Subject, differing, train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.testing.kit_model import Model

BEFORE, AFTER = 2, 2
ROUNDS = 3
"""Steps that are compared one by one."""
BUCKET = 1 << 11
"""Elements of a bucket, so that the kit's model has several."""
PIECE = 96
"""Elements of a piece that is rounded at once: whole vectors of a processor, as real ones are."""
STANDARD_ERRORS = 3.0
INDEPENDENT = 0.25
"""How far the variance of the sum of some roundings may be from the sum of their variances."""


def offloads(subject: Subject) -> None:
    """P14: with `offload`, state is elsewhere but for its own bucket; weights are the same bits.

    Also after a resume.
    """
    if subject.spec.why_not_offloaded:
        _is_refused(subject)
        return
    whole, plain = subject.start()
    train(whole, plain, BEFORE + AFTER)
    with patch.object(sizes, "ELEMENTS", BUCKET):
        half, optimizer = subject.start(offload="cpu")
        train(half, optimizer, BEFORE)
        _is_away(optimizer)
        resumed, optimizer = _resumed(subject, half, optimizer, offload="cpu")
        train(resumed, optimizer, AFTER, start=BEFORE)
        _is_away(optimizer)
    wrong = differing(weights(whole), weights(resumed))
    expect(not wrong, f"offload='cpu' changes the weights of {wrong}")


def splits(subject: Subject) -> None:
    """P14: with `rounding="split"`, bf16 weights and their bits are the weights of an fp32 run.

    Of one with the same gradients, bit for bit; also after a resume, and in pieces.
    """
    ours, theirs = _Twins(subject, "split"), _Twins(subject, None)
    with patch.object(sizes, "CACHED", PIECE):
        for step in range(BEFORE):
            ours.step(step)
            theirs.step(step)
        ours.resume()
        for step in range(BEFORE, BEFORE + AFTER):
            ours.step(step)
            theirs.step(step)
    wrong = differing(theirs.exact(), ours.exact())
    expect(not wrong, f"rounding='split' gives other weights than fp32 does: {wrong}")


def rounds(subject: Subject) -> None:
    """P14: with `rounding="stochastic"`, bf16 weights are right on average; a resume is exact."""
    ours, theirs = _Twins(subject, "stochastic"), _Twins(subject, None)
    other = _Twins(subject, "stochastic")
    errors, variances = [], []
    for step in range(ROUNDS):
        theirs.copy(ours)
        for twin in (ours, theirs, other):
            twin.step(step)
        error, variance = _rounding_errors(theirs.exact(), ours.exact())
        errors.append(error)
        variances.append(variance)
        if step == 0:
            other.resume()
    wrong = differing(ours.exact(), other.exact())
    expect(not wrong, f"rounding='stochastic' resumes with other weights of {wrong}")
    _are_right_on_average(torch.stack(errors), torch.stack(variances))


def _are_right_on_average(errors: Tensor, variances: Tensor) -> None:
    """Hold errors, steps × elements in units of the last place, to a mean of zero."""
    total = variances.sum()
    if not total:  # fp32 weights are not rounded
        expect(not errors.any(), "rounding='stochastic' changes weights that it is not for")
        return
    off = (errors.sum() / total.sqrt()).item()
    expect(abs(off) <= STANDARD_ERRORS, f"rounding is off by {off:.2g} standard errors")
    ratio = (errors.sum(0).square().sum() / total).item()
    expect(abs(ratio - 1) < INDEPENDENT, f"each step rounds like the others: {ratio:.2g}")


def _rounding_errors(exact: dict[str, Tensor], rounded: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Return how far magnitudes were rounded, and the variance that this should have.

    Both in units of the last place of bf16, for all elements.
    """
    wanted = torch.cat([exact[name].flatten() for name in exact])
    found = torch.cat([rounded[name].flatten() for name in exact])
    if torch.equal(wanted, found):
        return torch.zeros(2, len(wanted), dtype=torch.float64).unbind()
    lost = (wanted.view(torch.int32) & 0xFFFF).double() / (1 << 16)
    down = wanted.view(torch.int32) & -(1 << 16)
    places = ((found.view(torch.int32) - down) >> 16).double()
    return places - lost, lost * (1 - lost)


class _Twins:
    """An optimizer that gets the same gradients as others, in fp32 unless it rounds."""

    def __init__(self, subject: Subject, rounding: str | None) -> None:
        self._subject, self._rounding = subject, rounding
        self.model, self.optimizer = self._start()

    def _start(self) -> tuple[Model, Optimizer]:
        model = self._subject.model()
        if self._rounding is None:
            return model.float(), self._subject.build(model)
        return model, self._subject.build(model, rounding=self._rounding)

    def step(self, number: int) -> None:
        """Take a step with random gradients, which come as in a backward pass."""
        products = []
        for index, parameter in enumerate(self._trained()):
            generator = torch.Generator().manual_seed(100 * number + index)
            gradient = torch.randn(parameter.shape, generator=generator)
            gradient = gradient.to(DTYPES[self._subject.precision]).to(parameter)
            products.append((parameter * gradient).sum().float())
        torch.stack(products).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def resume(self) -> None:
        """Continue in a new model and optimizer."""
        self.model, self.optimizer = _resumed(
            self._subject, self.model, self.optimizer, rounding=self._rounding
        )

    @torch.no_grad()
    def copy(self, other: _Twins) -> None:
        """Take over another one's weights."""
        for ours, theirs in zip(self.model.parameters(), other.model.parameters(), strict=True):
            ours.copy_(theirs)

    def exact(self) -> dict[str, Tensor]:
        """Return the fp32 numbers that weights and bits are."""
        bits = {
            id(parameter): state.get(BITS)
            for member in members_of(self.optimizer)
            for parameter, state in member.state.items()
        }
        return {
            name: fp32_copy(p, bits.get(id(p))) if p.dtype in ROUNDED else p.detach().clone()
            for name, p in self.model.named_parameters()
        }

    def _trained(self) -> Iterator[Tensor]:
        return (parameter for parameter in self.model.parameters() if parameter.requires_grad)


def _resumed(
    subject: Subject, model: Model, optimizer: Optimizer, **arguments: Any
) -> tuple[Model, Optimizer]:
    """Return a new model and optimizer that continue where these are."""
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    again, other = subject.start(**arguments)
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    return again, other


def _is_away(optimizer: Optimizer) -> None:
    """Hold all state with dimensions to being on the host, but for what parameters share."""
    for member in members_of(optimizer):
        shared = {id(tensor) for _, tensor in attribute_tensors(member)}
        memories = member.hub_stepping.host.memories
        left = [
            tuple(tensor.shape)
            for parameter, state in member.state.items()
            for tensor in plain_tensors(state)
            if tensor.numel() > 1
            and id(tensor) not in shared
            and not memories[parameter.device].is_away(tensor.untyped_storage())
        ]
        expect(not left, f"after a step, state of these shapes is on the device: {left}")


def _is_refused(subject: Subject) -> None:
    try:
        subject.start(offload="cpu")
    except UnsupportedError as error:
        reason = subject.spec.why_not_offloaded
        expect(reason in error.what, f"the error lacks the reason '{reason}': {error}")
    else:
        raise AssertionError("offload='cpu' is accepted, although its spec has a reason against it")
