"""The optimizer of this plugin keeps hub's promises."""

from hub.testing import conformance

test_conformance = conformance(plugin="hub_muon.hooks")
