"""Importing the package behind a plugin does nothing else."""

import logging
import subprocess
import sys
import threading
import warnings

import pytest

import hub
from hub import backend, quiet

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


KEEPS_STREAMS = """
import logging, sys
handler = logging.StreamHandler()
logger = logging.getLogger("keeps_streams")
logger.propagate = False
logger.addHandler(handler)
logger.warning("not heard")
out = sys.stdout
print("not heard", file=out)
"""


def test_streams_that_an_import_keeps_work_afterwards(tmp_path, monkeypatch, capfd):
    """The logger of Transformers keeps the standard error that is there at its import."""
    (tmp_path / "keeps_streams.py").write_text(KEEPS_STREAMS)
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.stdout, sys.stderr
    module = backend.load("keeps_streams")
    assert (sys.stdout, sys.stderr) == before
    module.logger.warning("heard")
    print("printed", file=module.out)
    assert capfd.readouterr() == ("printed\n", "heard\n")


WAITS = """
import sys, logging, warnings
entered, leave = sys.modules["events_of_a_test"]
entered.set()
assert leave.wait(60)
"""
entered, leave = threading.Event(), threading.Event()


def test_other_threads_are_heard_during_an_import(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.setitem(sys.modules, "events_of_a_test", (entered, leave))
    (tmp_path / "waits.py").write_text(WAITS)
    monkeypatch.syspath_prepend(tmp_path)
    importing = threading.Thread(target=backend.load, args=["waits"])
    importing.start()
    assert entered.wait(60)
    sys.stdout.write("printed\n")
    logging.getLogger("someone").warning("logged")
    with pytest.warns(UserWarning, match="warned"):
        warnings.warn("warned", UserWarning, stacklevel=1)
    leave.set()
    importing.join()
    assert capfd.readouterr().out == "printed\n"
    assert caplog.messages == ["logged"]


def test_overlapping_blocks_without_warnings_leave_none_of_their_filters():
    before, filters = list(warnings.filters), warnings.filters
    first, second = quiet.no_warnings(), quiet.no_warnings(FutureWarning, "old")
    first.__enter__()
    second.__enter__()
    warnings.warn("anything", stacklevel=1)
    first.__exit__(None, None, None)
    warnings.warn("old thing", FutureWarning, stacklevel=1)
    with pytest.raises(FutureWarning, match="new"):
        warnings.warn("new thing", FutureWarning, stacklevel=1)
    second.__exit__(None, None, None)
    assert warnings.filters is filters
    assert warnings.filters == before


def test_a_missing_package_is_an_import_error():
    with pytest.raises(ImportError, match="no_such_backend"):
        backend.load("no_such_backend")


def one_of_each_package():
    """Return a name for each package: what its import does, it does for all of them."""
    return list({hub.describe(name).package: name for name in hub.list_optimizers()}.values())


FIRST_BUILDS = """
import logging, os, sys
from hub.testing import Subject

for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        handlers = list(logging.root.handlers)
        Subject(name).start()
        assert handlers == logging.root.handlers
        sys.exit()
    ended = os.waitpid(child, 0)[1]
    if ended:
        sys.exit(f"{name} ended with {ended}")
    print(name, flush=True)
"""


def test_the_first_build_of_a_process_prints_nothing():
    """Each is in a copy of a process that has built nothing."""
    names = one_of_each_package()
    done = subprocess.run(
        [sys.executable, "-c", FIRST_BUILDS, *names], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split("\n"), done.stderr) == (0, [*names, ""], "")
