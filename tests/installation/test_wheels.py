"""What the wheels hold and require."""

from email.parser import Parser
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

PACKAGES = ["hub", "hub_galore", "hub_schedulefree", "hub_signum"]


def read(wheels, package):
    (path,) = wheels.glob(f"{package}-2026*.whl")
    with ZipFile(path) as wheel:
        files = wheel.namelist()
        metadata = next(name for name in files if name.endswith(".dist-info/METADATA"))
        return files, Parser().parsestr(wheel.read(metadata).decode())


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_holds_its_package_and_nothing_else(wheels, package):
    files, metadata = read(wheels, package)
    info = f"{package}-{metadata['Version']}.dist-info"
    assert {name.partition("/")[0] for name in files} == {package, info}
    assert not [name for name in files if "tests/" in name or name.endswith(".pyc")]


@pytest.mark.parametrize("package", PACKAGES[:3])
def test_its_types_can_be_used(wheels, package):
    assert f"{package}/py.typed" in read(wheels, package)[0]


@pytest.mark.parametrize("package", PACKAGES[1:])
def test_a_plugin_cannot_be_resolved_to_the_unrelated_hub(wheels, package):
    """PyPI has another, retired distribution of that name, whose last version is 3.0.1."""
    metadata = read(wheels, package)[1]
    (hub,) = [r for r in map(Requirement, metadata.get_all("Requires-Dist")) if r.name == "hub"]
    assert not hub.specifier.contains("3.0.1")
    assert hub.specifier.contains("2026.11.0")
