"""Imported once, by the process that becomes the process of each training."""

from hub.quiet import no_output, no_warnings

with no_output(), no_warnings():
    import torch._dynamo

    import hub.building.build
    import hub.compare.training  # noqa: F401 - as the others
