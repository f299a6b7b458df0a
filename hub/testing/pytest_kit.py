"""The kit as a pytest test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hub.testing.matrix import cases
from hub.testing.promises import run

if TYPE_CHECKING:
    from hub.registry import Registry
    from hub.testing.matrix import Case


def conformance(
    *names: str,
    device: str = "cpu",
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Callable[[Case], None]:
    """Return a test function, parametrised over every check that applies to the names.

    Args:
        names: Optimizers.
        device: Where to run.
        expected_failures: Ids such as "resume-my_optimizer-bf16" to the reason why that check
            fails for now; a check that passes in spite of it fails the test.
        registry: Where to look the names up; by default what is installed.
    """
    import pytest

    reasons = dict(expected_failures or {})
    found = cases(names, device, registry)
    unknown = set(reasons) - {case.id for case in found}
    if unknown:
        raise ValueError(f"expected failures of checks that do not exist: {sorted(unknown)}")

    @pytest.mark.parametrize(
        "case",
        [
            pytest.param(
                case,
                id=case.id,
                marks=[pytest.mark.xfail(strict=True, reason=reasons[case.id])]
                if case.id in reasons
                else [],
            )
            for case in found
        ],
    )
    def test_conformance(case: Case) -> None:
        run(case.check, case.subject)

    return test_conformance
