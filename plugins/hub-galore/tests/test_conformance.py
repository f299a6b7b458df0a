"""The optimizers of this plugin keep hub's promises."""

from importlib.metadata import entry_points

from hub.testing import conformance

test_conformance = conformance(
    *sorted(p.name for p in entry_points(group="hub.optimizers") if p.module == "hub_galore.hooks")
)
