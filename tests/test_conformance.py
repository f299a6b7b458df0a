"""The built-in optimizers keep hub's promises."""

from hub.testing import conformance

test_conformance = conformance(
    "adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor"
)
