"""What README and the guides show is executed."""

import pytest

import hub
from tests.docs.conftest import DOCS, READMES, ROOT, blocks, generator

PAGES = [DOCS / page for page in ("design.md", "layerwise.md", "low-memory.md", "mixed.md")]
# hub-pytorch-optimizer has an environment to itself, where its README runs.
INSTALLED = [path for path in READMES if path.parent.name != "hub-pytorch-optimizer"]


@pytest.mark.parametrize(
    "path", [*INSTALLED, *PAGES], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_python_of_the_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    trainers = text.partition("## In your trainer")[2].partition("\n## ")[0]
    mine = [block for block in blocks(text) if block not in trainers]
    assert mine  # those of trainers run in tests/trainers, where the trainers are
    for block in mine:
        exec(compile(block, str(path), "exec"), {})


def test_the_first_lines_of_python_are_ten():
    assert len(blocks((ROOT / "README.md").read_text())[0].strip().splitlines()) <= 10


def test_readme_names_everything_there_is():
    text = (ROOT / "README.md").read_text()
    for name in [*hub.list_optimizers(), *hub.list_schedulers()]:
        assert f"`{name}`" in text
    for name in hub.__all__:
        if callable(getattr(hub, name)) and name[0].islower() and name != "hookimpl":
            assert f"hub.{name}(" in text


def test_ci_calls_the_readmes_test_command():
    command = blocks((ROOT / "README.md").read_text(), "sh")[1].strip()
    assert command.removeprefix("pip install ") in (ROOT / ".ci/run").read_text().replace(
        "--quiet ", ""
    )


def test_the_page_of_optimizers_is_current():
    """Given that all promises are kept, which the conformance tests show."""
    from hub.testing import cases

    script = generator("generate_optimizers")
    results = dict.fromkeys(cases(hub.list_optimizers()), True)
    assert script["page"](results) == (DOCS / "optimizers.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert script["between_marks"](readme, script["summary"](results)) == readme


def test_the_page_of_optimizers_says_what_is_broken():
    from hub.testing import cases

    script = generator("generate_optimizers")
    results = dict.fromkeys(cases(["adamw_torch"]), True)
    broken = next(iter(results))
    assert "is broken" not in script["statement"](results)
    assert f"{broken.id} is broken" in script["statement"]({**results, broken: False})
