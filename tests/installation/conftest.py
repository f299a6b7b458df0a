"""Wheels of all distributions, and in each process an empty environment to install them into.

torch is in that environment only: nothing on this side imports it.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.installation.toys import BROKEN, OBSERVERS

ROOT = Path(__file__).parents[2]
PROJECTS = (
    ROOT,
    ROOT / "plugins" / "hub-galore",
    ROOT / "plugins" / "hub-schedulefree",
    ROOT / "docs" / "tutorial" / "hub-signum",
)
PROBE = Path(__file__).with_name("probe.py")


class Environment:
    """A virtual environment, and what one does in it."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        venv.create(folder, with_pip=True)
        self._scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self._elsewhere = folder.parent
        self._wheels = wheels

    def run(
        self, command: str, *arguments: object, status: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment, and hold it to its exit status."""
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "HUB_", "VIRTUAL_ENV"))
        }
        done = subprocess.run(
            [str(self._scripts / command), *map(str, arguments)],
            env={
                **inherited,
                "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
                "COLUMNS": "1000",
                **variables,
            },
            cwd=self._elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done

    def pip_install(self, *requirements: str) -> None:
        """Install from the index and, by name or as file names, from our wheels."""
        self.run(
            "python", "-m", "pip", "install", "--quiet", "--find-links", self._wheels, *requirements
        )

    def pip_uninstall(self, *distributions: str) -> None:
        self.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", *distributions)

    def probe(self, *names: str, **variables: str) -> dict:
        """Ask hub about every installed name, and about others."""
        return json.loads(self.run("python", "-I", PROBE, *names, **variables).stdout)

    @contextmanager
    def installed(
        self, *distributions: str, no_deps: bool = False, named: str = ""
    ) -> Iterator[None]:
        """Have some of our wheels installed inside the block, or a folder by its name."""
        try:
            self.pip_install(*(["--no-deps"] if no_deps else []), *distributions)
            yield
        finally:
            self.pip_uninstall(*([named] if named else distributions))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of our distributions and of the toys."""
    folder, sources = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("sources")
    for project in (*PROJECTS, *(toy.write(sources) for toy in (*BROKEN, *OBSERVERS))):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            cwd=project,
            check=True,
            capture_output=True,
        )
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Environment]:
    """An environment into which `hub` was installed by name, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    environment = Environment(folder / "venv", wheels)
    environment.pip_install("hub")
    yield environment
    shutil.rmtree(folder)  # more than a gigabyte, and pytest keeps the folders of three runs
