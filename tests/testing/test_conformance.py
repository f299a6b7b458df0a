"""The built-in optimizers keep hub's promises."""

from hub.testing import conformance

test_conformance = conformance(plugin="hub.builtin.hooks")
