"""Foresee which parameters are stepped next, where they are stepped one by one."""

from __future__ import annotations

from itertools import chain, takewhile
from typing import TYPE_CHECKING

from hub.running.buckets import sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer


class Order:
    """The order of the last step, in which the parameters of this one are expected.

    Backward passes complete gradients in nearly the same order. The first one is expected to go
    through the groups from their end.
    """

    def __init__(self) -> None:
        self._expected: list[Tensor] = []
        self._places: dict[int, int] = {}
        """Of the expected parameters, by identity."""
        self._stepped: dict[int, Tensor] = {}
        """By identity, in order."""
        self._announced: dict[int, Tensor] = {}
        """Those that were announced and have not come, by identity, in order."""
        self._elements = 0
        """Of these."""
        self._reached = 0
        """How many places have been reached in this step."""
        self._looked_at = 0
        """How many places have been looked at, to announce what is there."""

    def begin(self) -> None:
        """Start a new step."""
        self._stepped.clear()
        self.withdraw()
        self._reached = self._looked_at = 0

    def follow(
        self, optimizer: Optimizer, parameters: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Note which parameters are stepped now.

        Args:
            optimizer: Steps them.
            parameters: Those that are stepped now.

        Returns:
            The parameters to announce, so that about a bucket is announced, or one parameter; and
            those that were announced and have not come when they were expected.
        """
        if not self._expected:
            groups = (reversed(group["params"]) for group in reversed(optimizer.param_groups))
            self._expect(chain.from_iterable(groups))
        for parameter in parameters:
            self._stepped[id(parameter)] = parameter
            self._forget(parameter)
            self._reached = max(self._reached, self._places.get(id(parameter), -1) + 1)
        late = [*takewhile(self._is_late, self._announced.values())]
        for parameter in late:
            self._forget(parameter)
        return [*self._announce()], late

    def withdraw(self) -> list[Tensor]:
        """Return the parameters that were announced and have not come, and expect them no more."""
        left = [*self._announced.values()]
        self._announced.clear()
        self._elements = 0
        return left

    def end(self) -> None:
        """End the step."""
        if self._stepped:
            self._expect(self._stepped.values())

    def _announce(self) -> Iterator[Tensor]:
        self._looked_at = max(self._looked_at, self._reached)
        while self._looked_at < len(self._expected):
            parameter = self._expected[self._looked_at]
            if self._announced and self._elements + parameter.numel() > sizes.ELEMENTS:
                return
            self._looked_at += 1
            if id(parameter) not in self._stepped:
                self._announced[id(parameter)] = parameter
                self._elements += parameter.numel()
                yield parameter

    def _is_late(self, parameter: Tensor) -> bool:
        return self._places[id(parameter)] < self._reached

    def _forget(self, parameter: Tensor) -> None:
        if self._announced.pop(id(parameter), None) is not None:
            self._elements -= parameter.numel()

    def _expect(self, parameters: Iterable[Tensor]) -> None:
        self._expected = [*parameters]
        self._places = {id(parameter): n for n, parameter in enumerate(self._expected)}
