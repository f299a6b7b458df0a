"""The core alone, then with its extras, then without them again, all in one environment."""

import json
import shlex
import tomllib
from typing import NamedTuple

import pytest

from tests.installation.conftest import ROOT

CORE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT_IN = sorted(CORE["entry-points"]["hub.optimizers"])
OFFERS = {
    "galore": ["galore_adafactor", "galore_adamw", "galore_adamw_8bit"],
    "schedulefree": ["schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"],
}
INSTALLABLE = [
    name
    for path in (*ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("contrib/*/pyproject.toml"))
    for name in tomllib.loads(path.read_text())["project"]["entry-points"]["hub.optimizers"]
]
OFFERED = sorted(name for names in OFFERS.values() for name in names)


class Stages(NamedTuple):
    """What hub answered, one stage after the other."""

    core: dict
    core_list: list[dict]
    extended: dict
    removed: dict


@pytest.fixture(scope="module")
def stages(environment):
    core = environment.probe(*OFFERED)
    core_list = json.loads(environment.run("hub", "list", "--json").stdout)
    try:
        for names in OFFERS.values():
            environment.pip_install(*requirements_of(core["errors"][names[0]]["fix"]))
        extended = environment.probe()
    finally:
        environment.pip_uninstall(*(f"hub-{extra}" for extra in OFFERS))
    return Stages(core, core_list, extended, removed=environment.probe(*OFFERED))


def requirements_of(remedy):
    """Return what a `pip install` command that hub gave as a remedy installs."""
    program, verb, *requirements = shlex.split(remedy)
    assert (program, verb) == ("pip", "install")
    return requirements


def test_the_index_has_another_hub_but_ours_is_newer(stages):
    assert stages.core["version"] == "2026.11.0"


def test_the_core_alone_offers_its_own_names(stages):
    assert stages.core["optimizers"] == stages.core["built"] == BUILT_IN
    assert stages.core["schedulers"] == sorted(CORE["entry-points"]["hub.schedulers"])


def test_the_core_alone_lists_what_could_be_installed(stages):
    rows = {row["name"]: row for row in stages.core_list if row["kind"] == "optimizer"}
    assert sorted(rows) == sorted([*BUILT_IN, *INSTALLABLE])
    assert [name for name, row in rows.items() if row["installed"]] == BUILT_IN
    for extra, names in OFFERS.items():
        assert {rows[name]["install"] for name in names} == {f'pip install "hub[{extra}]"'}


def test_lookups_import_neither_torch_nor_pydantic(stages):
    assert stages.core["unknown"]["type"] == "UnknownOptimizerError"
    for stage in (stages.core, stages.extended, stages.removed):
        assert stage["imported_by_lookups"] == []


@pytest.mark.parametrize("extra", OFFERS)
def test_a_missing_name_says_how_to_install_it(stages, extra):
    for name in OFFERS[extra]:
        error = stages.core["errors"][name]
        assert error["type"] == "UnknownOptimizerError"
        assert f'pip install "hub[{extra}]"' in error["message"]


def test_following_that_advice_gives_the_names(stages):
    assert stages.extended["optimizers"] == sorted([*BUILT_IN, *OFFERED])
    assert stages.extended["built"] == stages.extended["optimizers"]
    assert stages.extended["errors"] == {}


def test_without_the_plugins_the_core_is_as_it_was(stages):
    assert stages.removed == stages.core
