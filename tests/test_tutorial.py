"""The tutorial shows the files of its example as they are, and the design leaves no hook out.

`tests/installation/test_example.py` installs the example and runs it.
"""

import re
import sys
import types
from importlib.metadata import EntryPoint, distribution
from pathlib import Path

import hub
from hub import errors, hookspecs
from hub.names.registry import Registry
from hub.testing import cases, run

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLE = DOCS / "tutorial" / "hub-signum"
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def shown_files():
    return BLOCK.findall((DOCS / "write-a-plugin.md").read_text(encoding="utf-8"))


def test_every_file_is_shown_once_and_as_it_is():
    shown = shown_files()
    files = {
        path.relative_to(EXAMPLE).as_posix(): path.read_text(encoding="utf-8")
        for path in EXAMPLE.rglob("*")
        if path.suffix in {".py", ".toml"}
    }
    assert dict(shown) == files
    assert len(shown) == len(files)


def test_the_example_needs_little_of_hub():
    hooks = (EXAMPLE / "src" / "hub_signum" / "hooks.py").read_text(encoding="utf-8")
    used = set(re.findall(r"\bhub\.(\w+)", hooks))
    assert used == {"hookimpl", "OptimizerSpec", "BuildContext"}
    assert "hub" not in (EXAMPLE / "src" / "hub_signum" / "signum.py").read_text(encoding="utf-8")


def test_the_design_has_every_hook_with_its_arguments():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    for name, hook in vars(hookspecs).items():
        if name.startswith("hub_"):
            arguments = hook.__code__.co_varnames[: hook.__code__.co_argcount]
            assert f"`{name}({', '.join(arguments)})`" in text


def test_the_design_has_every_error():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    for error in errors.HubError.__subclasses__():
        assert f"| `{error.__name__}` |" in text


def test_the_programs_of_the_design_run():
    text = (DOCS / "design.md").read_text(encoding="utf-8")
    for program in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(program, {})


def test_the_changelog_begins_with_this_version():
    text = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([^]]+)\]", text, re.MULTILINE)[0] == hub.__version__


def test_the_schedule_of_the_guide_keeps_its_promises(monkeypatch):
    """But for what it declares, as torch's own class does not keep that."""
    text = (DOCS / "write-a-plugin.md").read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("guide_schedule")
    exec(next(p for p in programs if "SchedulerSpec" in p), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    point = EntryPoint("one_cycle", module.__name__, "hub.schedulers")
    vars(point)["dist"] = distribution("hub")
    failed = set()
    for case in cases(["one_cycle"], registry=Registry([point])):
        try:
            run(case.check, case.subject)
        except Exception:  # noqa: BLE001 - as the command does
            failed.add((case.check, bool(case.known)))
    assert failed == {("late_group_schedule", True)}
