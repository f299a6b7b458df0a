"""Imported once, by the process that becomes the process of each training."""

from importlib import import_module

from hub.quiet import no_output, no_warnings

with no_output(), no_warnings():
    for name in ("torch._dynamo", "hub.building.build", "hub.compare.execution.training"):
        import_module(name)
