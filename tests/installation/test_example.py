"""The tutorial's example, installed like any plugin."""

import re
import shutil

import pytest

from tests.installation.conftest import ROOT

EXAMPLE = ROOT / "docs" / "tutorial" / "hub-signum"
TUTORIAL = ROOT / "docs" / "write-a-plugin.md"


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
    programs = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    assert programs
    for program in programs:
        installed.run("python", "-I", "-c", program)


def test_the_doctor_finds_it_healthy(installed):
    assert "hub_signum.hooks" in installed.run("hub", "doctor").stdout
