"""The optimizers of this plugin keep hub's promises."""

from hub_bitsandbytes.hooks import ROWS

from hub.testing import conformance

test_conformance = conformance(*ROWS)
