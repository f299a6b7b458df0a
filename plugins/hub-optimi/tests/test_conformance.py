"""`stable_adamw` keeps hub's promises."""

from hub.testing import conformance

test_conformance = conformance("stable_adamw")
