"""Importing the package behind a plugin does nothing else."""

import logging
import subprocess
import sys
import warnings

import pytest

import hub
from hub import backend

NOISY = """
import logging, sys, warnings
print("Welcome!")
sys.stderr.write("Failed to load something\\n")
logging.basicConfig(level=logging.INFO, force=True)
logging.getLogger("noisy").warning("install more of me")
warnings.warn("I am old", FutureWarning)
warnings.simplefilter("ignore")
VALUE = 3
"""


def test_side_effects_of_an_import_are_contained(tmp_path, monkeypatch, capfd):
    (tmp_path / "noisy_backend.py").write_text(NOISY)
    monkeypatch.syspath_prepend(tmp_path)
    before = list(warnings.filters), list(logging.root.handlers), logging.root.level
    assert backend.load("noisy_backend").VALUE == 3
    assert before == (list(warnings.filters), list(logging.root.handlers), logging.root.level)
    assert logging.root.manager.disable == logging.NOTSET
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_an_import_error():
    with pytest.raises(ImportError, match="no_such_backend"):
        backend.load("no_such_backend")


def one_of_each_package():
    """Return a name for each package: what its import does, it does for all of them."""
    return list({hub.describe(name).package: name for name in hub.list_optimizers()}.values())


@pytest.mark.parametrize("name", one_of_each_package())
def test_the_first_build_of_a_process_prints_nothing(name):
    program = f"""
import logging
from hub.testing import Subject
handlers = list(logging.root.handlers)
Subject({name!r}).start()
assert handlers == logging.root.handlers
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
