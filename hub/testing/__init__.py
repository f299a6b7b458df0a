"""The conformance kit: hub's promises as checks that run, for plugin authors and for `hub check`.

A plugin's whole conformance test is

    from hub.testing import conformance

    test_conformance = conformance("my_optimizer")
"""

from hub.testing.matrix import Case, cases
from hub.testing.promises import CHECKS, run
from hub.testing.pytest_kit import conformance
from hub.testing.subject import Subject

__all__ = ["CHECKS", "Case", "Subject", "cases", "conformance", "run"]
