"""Step whole parameters on their owners."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

import torch

from hub.errors import HubError
from hub.running.sharded.exchange import Exchange, Form
from hub.running.sharded.layout import in_buckets
from hub.running.stand_ins import StandIn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from hub.running.sharded.exchange import Arrival
    from hub.running.sharded.members import Member


class WholeStep:
    """One step of the whole parameters that share an exchange.

    They go to their owners and back in buckets, and the next bucket travels while one is stepped.
    New rows are put into place once every owner has reported success.

    Args:
        exchange: The ranks that share the parameters.
        items: The place of each parameter in the optimizer.
        update: Steps stand-ins.
        name: The optimizer's name, for messages.
    """

    def __init__(
        self,
        exchange: Exchange,
        items: Mapping[Tensor, StandIn],
        update: Callable[[Sequence[StandIn]], object],
        name: str,
    ) -> None:
        self._exchange, self._items, self._update, self._name = exchange, items, update, name
        self._error: Exception | None = None
        self._failed: set[int] = set()
        self._new: list[tuple[Tensor, Tensor]] = []
        """This rank's rows, and what is to become of them."""

    def run(self, members: Sequence[Member]) -> None:
        """Step these parameters, which have to be the same on every rank.

        Raises:
            HubError: An owner's update failed; raised on every rank, with no weight changed.
        """
        buckets = list(in_buckets(members, self._exchange.ranks))
        coming = self._send_to_owners(buckets[0])
        going: Callable[[], None] | None = None
        for bucket, following in zip_longest(buckets, buckets[1:]):
            own = list(self._stand_ins(bucket, coming.wait()))
            if following:
                coming = self._send_to_owners(following)
            self._step(own)
            if going:
                going()
            going = self._send_back(bucket, own)
        if going:
            going()
        self._raise_if_failed()
        for rows, new in self._new:
            rows.copy_(new)

    def _send_to_owners(self, bucket: Sequence[Member]) -> Arrival:
        messages: list[list[Tensor]] = [[] for _ in range(self._exchange.ranks)]
        expected: list[list[Form]] = [[] for _ in range(self._exchange.ranks)]
        for member in bucket:
            gradient = member.local_gradient
            assert gradient is not None and member.owner is not None  # noqa: PT018, S101 - by `run`
            messages[member.owner] += [member.local, gradient]
            if member.is_owned:
                for rank, forms in enumerate(expected):
                    shape = member.shape_on(rank)
                    forms += [Form(shape, member.parameter.dtype), Form(shape, gradient.dtype)]
        return self._exchange.start(messages, expected)

    def _stand_ins(
        self, bucket: Sequence[Member], arrived: Sequence[Sequence[Tensor]]
    ) -> Iterator[tuple[Member, StandIn]]:
        """Yield a stand-in for each parameter of a bucket that this rank owns."""
        pieces = zip(*arrived, strict=True)
        for member in bucket:
            if member.is_owned:
                item = self._items[member.parameter]
                tensor = torch.nn.Parameter(torch.cat(next(pieces)))
                tensor.grad = torch.cat(next(pieces))
                yield member, StandIn(item.group, item.index, member.parameter, tensor)

    def _step(self, own: Sequence[tuple[Member, StandIn]]) -> None:
        if self._error is None and own:
            try:
                self._update([item for _, item in own])
            except Exception as error:  # noqa: BLE001 - the other ranks have to hear of it
                self._error = error

    def _send_back(
        self, bucket: Sequence[Member], own: Sequence[tuple[Member, StandIn]]
    ) -> Callable[[], None]:
        """Send new rows to all ranks, with whether an update failed; return what takes them."""
        exchange = self._exchange
        status = torch.tensor([self._error is not None], device=bucket[0].parameter.device)
        messages = [[status] for _ in range(exchange.ranks)]
        for member, item in own:
            pieces = torch.split(item.tensor.detach(), list(member.rows))
            for message, rows in zip(messages, pieces, strict=True):
                message.append(rows)
        theirs = [
            [member for member in bucket if member.owner == rank] for rank in range(exchange.ranks)
        ]
        arrival = exchange.start(
            messages,
            [[Form.of(status), *(Form.of(member.local) for member in some)] for some in theirs],
        )

        def take() -> None:
            for rank, (failed, *rows) in enumerate(arrival.wait()):
                if failed:
                    self._failed.add(rank)
                places = [member.local for member in theirs[rank]]
                self._new += zip(places, rows, strict=True)

        return take

    def _raise_if_failed(self) -> None:
        if not self._failed:
            return
        texts = self._exchange.gather(str(self._error))
        rank = min(self._failed)
        raise HubError(
            f"the update failed on rank {rank}: {texts[rank]}",
            where=self._name,
            fix="no weights have changed, on any rank; the next step begins as usual",
        ) from self._error
