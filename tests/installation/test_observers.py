"""Observers: a good one is called, a broken one costs a warning."""

import json

import pytest

from tests.installation.conftest import PROBE
from tests.installation.test_extras import BUILT_IN
from tests.installation.toys import OBSERVERS

BROKEN = [toy for toy in OBSERVERS if toy.says]


@pytest.fixture(scope="module")
def builds(environment):
    """A process that built every optimizer while the observers were installed."""
    with environment.installed(*(toy.distribution for toy in OBSERVERS)):
        return environment.run("python", "-I", PROBE)


@pytest.fixture(scope="module")
def answers(builds):
    return json.loads(builds.stdout)


def test_every_optimizer_is_built(answers):
    assert answers["built"] == BUILT_IN


def test_a_good_observer_sees_every_optimizer_and_its_plan_once(builds):
    seen = [line for line in builds.stderr.splitlines() if line.startswith("saw ")]
    assert len(seen) == len(BUILT_IN)
    assert {"saw AdamW, adamw_torch", "saw SGD, sgd"} < set(seen)


@pytest.mark.parametrize("toy", BROKEN, ids=lambda toy: toy.distribution)
def test_a_broken_observer_is_a_warning(answers, toy):
    warned = [text for text in answers["warnings"] if all(part in text for part in toy.says)]
    assert len(warned) == len(BUILT_IN)
    assert len(answers["warnings"]) == len(BUILT_IN) * len(BROKEN)
