"""The kit as a pytest test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hub.testing.device import device_of_tests
from hub.testing.matrix import cases, names_of
from hub.testing.promises import run

if TYPE_CHECKING:
    from hub.names.registry import Registry
    from hub.testing.matrix import Case


def conformance(
    *names: str,
    plugin: str | None = None,
    device: str | None = None,
    registry: Registry | None = None,
    processes: int = 1,
) -> Callable[[Case], None]:
    """Return a test function, parametrized over every check that applies to the names.

    A check that the spec declares as a known failure is expected to fail, and fails the test if it
    passes.

    Args:
        names: Optimizers and schedules.
        plugin: The module of a plugin's hooks, for everything that it offers.
        device: Where to run; by default what the environment variable HUB_TEST_DEVICE says, or
            else on the CPU.
        registry: Where to look the names up; by default what is installed.
        processes: With how many the checks of several processes run; they do not with 1.

    Raises:
        HubError: There is no such device, or a name is unknown.
    """
    import pytest

    offered = names_of(plugin, registry) if plugin else []

    @pytest.mark.parametrize(
        "case",
        [
            pytest.param(
                case,
                id=case.id,
                marks=[pytest.mark.xfail(strict=True, reason=case.known)] if case.known else [],
            )
            for case in cases([*names, *offered], device or device_of_tests(), registry, processes)
        ],
    )
    def test_conformance(case: Case) -> None:
        run(case.check, case.subject)

    return test_conformance
