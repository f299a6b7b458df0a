"""`prodigy` keeps hub's promises."""

from hub.testing import conformance

test_conformance = conformance(plugin="hub_prodigy.hooks")
