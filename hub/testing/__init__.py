"""The conformance kit: hub's promises as checks that run, for plugin authors and for `hub check`.

A plugin's whole conformance test is

    from hub.testing import conformance

    test_conformance = conformance(plugin="my_plugin.hooks")

`hub.testing.upstream` compares a plugin with the class that it wraps.
"""

from hub.testing.matrix import Case, cases
from hub.testing.promises import CHECKS, PROMISES, run
from hub.testing.pytest_kit import conformance
from hub.testing.subject import Subject

__all__ = ["CHECKS", "PROMISES", "Case", "Subject", "cases", "conformance", "run"]
