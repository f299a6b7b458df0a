"""What `hub new-plugin` writes builds, installs and keeps hub's promises."""

import re
import shutil

import pytest
from helpers.shown import COMMANDS, assert_shown, files


@pytest.fixture
def new_plugin(environment, tmp_path):
    """Write a plugin in the environment; return its folder."""

    def write(target, name):
        folder = tmp_path / f"hub-{name}"
        environment.run("hub", "new-plugin", target, "--out", folder)
        return folder

    return write


def test_it_works_without_an_edit(environment, new_plugin, tmp_path):
    folder = new_plugin("torch.optim:RAdam", "radam")
    with environment.installed(str(folder), named="hub-radam"):
        environment.pip_install("pytest")
        assert "hub_radam.hooks" in environment.run("hub", "doctor").stdout
        shutil.copytree(folder / "tests", tmp_path / "tests")  # away from the sources
        said = environment.run("python", "-m", "pytest", "-q", tmp_path / "tests").stdout
        assert re.search(r"^\d+ passed", said, re.MULTILINE)


def test_a_finding_is_the_upstream_classs_and_can_be_fixed(environment, new_plugin):
    folder = new_plugin("torch.optim:NAdam", "nadam")
    with environment.installed(str(folder), named="hub-nadam"):
        found = environment.run("hub", "check", "nadam", status=1, COLUMNS="80").stdout
        assert_shown("hub check nadam", found)
        broken = re.findall(r"^ +nadam +(\w+) .*broken", found, re.MULTILINE)
        assert broken == re.findall(r"nadam +(\w+) .*broken", COMMANDS["hub check nadam"])
    for path, text in files("hub-nadam").items():
        (folder / path).write_text(text)
    hooks = folder / "src/hub_nadam/hooks.py"
    fixed = hooks.read_text().replace("torch.optim:NAdam", "hub_nadam.factory:build")
    hooks.write_text(fixed)
    with environment.installed(str(folder), named="hub-nadam"):
        environment.run("hub", "check", "nadam")
