"""The plugins of the guide, installed like any other."""

import re
import shutil

import pytest
from helpers.shown import DOCS, PAGE, assert_shown, files

EXAMPLE = DOCS / "tutorial" / "hub-signum"


@pytest.fixture(scope="module")
def installed(environment):
    with environment.installed("hub-signum"):
        environment.pip_install("pytest")
        yield environment


def test_it_passes_its_own_tests(installed, tmp_path):
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")  # away from our settings of pytest
    said = installed.run("python", "-m", "pytest", "-q", tmp_path / "tests").stdout
    assert re.search(r"\d+ passed", said)
    assert "skipped" not in said


def test_the_programs_of_the_text_run(installed):
    programs = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert programs
    for program in programs:
        installed.run("python", "-I", "-c", program)


def test_the_doctor_finds_it_healthy(installed):
    assert "hub_signum.hooks" in installed.run("hub", "doctor").stdout


def test_the_first_plugin_is_checked_as_shown(environment, tmp_path):
    for path, text in files("hub-adamax").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    with environment.installed(str(tmp_path), named="hub-adamax"):
        for command in ("hub doctor", "hub check adamax"):
            done = environment.run(*command.split(), COLUMNS="80")
            assert_shown(command, done.stdout)
