"""Which versions took part, so that a result can be repeated."""

from __future__ import annotations

import platform
from importlib import metadata

import hub


def collect(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of Python, hub, torch, Transformers, and what is behind these optimizers.

    Args:
        names: Of optimizers that are installed.
    """
    distributions = {"torch", "transformers"}
    for name in names:
        spec = hub.describe(name)
        distributions.add(spec.package)
        points = metadata.entry_points(group="hub.optimizers", name=spec.name)
        distributions.update(point.dist.name for point in points if point.dist)
    versions = {"python": platform.python_version(), "hub": hub.__version__}
    for distribution in sorted(distributions - {"hub"}):
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            versions[distribution] = "not installed"
    return versions
