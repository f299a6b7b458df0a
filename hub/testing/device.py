"""Where the checks of a plugin's tests run."""

from __future__ import annotations

import os

from hub.experiments.devices import check_device


def device_of_tests() -> str:
    """Return the device in the environment variable HUB_TEST_DEVICE, or "cpu".

    Raises:
        HubError: torch has no such device.
    """
    device = os.environ.get("HUB_TEST_DEVICE", "cpu")
    check_device(device)
    return device
