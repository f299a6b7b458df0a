"""Failing a check."""

from __future__ import annotations


def expect(condition: object, broken: object) -> None:
    """Fail the check unless a condition holds; `assert` would vanish under `python -O`.

    Raises:
        AssertionError: With what is broken.
    """
    if not condition:
        raise AssertionError(str(broken))
