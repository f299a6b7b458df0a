"""The optimizers of this plugin keep hub's promises."""

from hub.testing import conformance

test_conformance = conformance(plugin="hub_lomo.hooks")
