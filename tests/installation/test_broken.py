"""A broken plugin costs its own names, wherever it is broken, and says so."""

import json
import re

import pytest

from tests.installation.test_extras import BUILT_IN
from tests.installation.toys import BROKEN

BROKEN_NAMES = {toy.breaks for toy in BROKEN}
DECLARED = {name for toy in BROKEN for name in toy.declares}
WORKING = sorted({*BUILT_IN, *DECLARED} - BROKEN_NAMES)
every_toy = pytest.mark.parametrize("toy", BROKEN, ids=lambda toy: toy.distribution)


@pytest.fixture(scope="module")
def broken(environment):
    with environment.installed(*(toy.distribution for toy in BROKEN), no_deps=True):
        yield environment


@pytest.fixture(scope="module")
def answers(broken):
    return broken.probe()


def listed(environment, **variables):
    """Return the summary of every installed optimizer, as `hub list` has it."""
    rows = json.loads(environment.run("hub", "list", "--json", **variables).stdout)
    return {
        row["name"]: row["summary"]
        for row in rows
        if row["installed"] and row["kind"] == "optimizer"
    }


@pytest.fixture(scope="module")
def doctor(broken):
    return broken.run("hub", "doctor", status=1).stdout


def test_every_other_name_builds(answers):
    assert answers["built"] == WORKING
    assert "toy_without_clash" in WORKING


def test_every_name_is_listed(answers, broken):
    summaries = listed(broken)
    assert sorted(summaries) == answers["optimizers"] == sorted({*BUILT_IN, *DECLARED})
    for name in WORKING:
        assert not summaries[name].startswith("broken")


@every_toy
def test_its_own_name_says_which_plugin_why_and_what_to_do(answers, toy):
    error = answers["errors"][toy.breaks]
    assert error["type"] == "PluginError"
    assert toy.distribution in error["plugin"]
    assert error["fix"]
    for text in toy.says:
        assert text in error["message"]


@every_toy
def test_the_doctor_says_it_too(doctor, toy):
    for text in (toy.distribution, *toy.says):
        assert text in doctor


def test_disabled_plugins_are_as_if_not_installed(broken):
    disabled = ",".join(toy.distribution for toy in BROKEN)
    assert sorted(listed(broken, HUB_DISABLE_PLUGINS=disabled)) == BUILT_IN
    broken.run("hub", "doctor", HUB_DISABLE_PLUGINS=disabled)


def test_disabling_one_side_of_a_clash_settles_it(broken):
    said = broken.run("hub", "show", "sgd", status=2).stderr
    assert "HUB_DISABLE_PLUGINS" in said
    shown = broken.run("hub", "show", "sgd", HUB_DISABLE_PLUGINS="hub_toy_clash").stdout
    assert re.search(r"from +hub, ", shown)
    assert "toy_without_clash" not in listed(broken, HUB_DISABLE_PLUGINS="hub_toy_clash")


def test_tracing_writes_the_hook_calls(broken):
    done = broken.run("hub", "show", "adamw_torch", HUB_TRACE_PLUGINS="1")
    assert "hub_register_optimizers" in done.stderr
    assert "hub_register" not in broken.run("hub", "show", "adamw_torch").stderr
