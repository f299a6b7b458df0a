"""How many threads the checks compute on."""

from __future__ import annotations

import os


def thread_count() -> int:
    """Return the number in the environment variable HUB_TEST_THREADS, or 1.

    One, because the models are tiny and the tests that run side by side share the cores. How sums
    are split over threads changes their last bits, so a process that continues another's training
    needs the same number.
    """
    return int(os.environ.get("HUB_TEST_THREADS", "1"))
