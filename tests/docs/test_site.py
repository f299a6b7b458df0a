"""The site has everything: each link leads somewhere, each public name is in the reference.

That Sphinx builds it without a warning is `tox run -e docs`.
"""

import ast
import inspect
import re
from importlib import import_module

import pytest

from tests.docs.conftest import DOCS, DOCUMENTS, ROOT, blocks

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
DIRECTIVE = re.compile(r"^\.\. (?:auto|py:)(\w+):: (\S+)$", re.MULTILINE)


def without_code(text):
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "`…`", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """Return what GitHub, and MyST after it, make of the headings."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


def target(document, link):
    """Return the file that a relative link leads to, as GitHub follows it, and its anchor."""
    path, _, anchor = link.partition("#")
    found = document.parent / path if path else document
    return found / "README.md" if found.is_dir() and anchor else found, anchor


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for link in LINK.findall(without_code(document.read_text())):
        if "://" in link:
            continue
        found, anchor = target(document, link)
        assert found.exists(), link
        assert not anchor or anchor in anchors(found.read_text()), link


def test_planted_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title: `code`, and more\n")
    assert anchors(page.read_text()) == {"a-title-code-and-more"}
    assert LINK.findall(without_code("[a](b.md#c) `[d](e)` ![f](g)")) == ["b.md#c"]
    assert target(page, "#x") == (page, "x")


def test_the_index_leads_to_every_document():
    index = DOCS / "index.md"
    linked = {target(index, link)[0].resolve() for link in LINK.findall(index.read_text())}
    assert {path for path in DOCUMENTS if path != index} == linked


def defined(module):
    """Return the public names that a module, or its `__all__`, defines."""
    if hasattr(module, "__all__"):
        return module.__all__
    names = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [each.id for each in targets if isinstance(each, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def documented():
    """Yield every object that the reference has: by itself, or as documented in its module."""
    reference = "".join(blocks((DOCS / "reference.md").read_text(), r"\{eval-rst\}"))
    for kind, path in DIRECTIVE.findall(reference):
        home, _, name = path.rpartition(".")
        if home.startswith("hub.trainers"):  # which imports trainers, that are not here
            continue
        if kind != "module":
            yield getattr(import_module(home), name)
            continue
        found = [getattr(import_module(path), name) for name in defined(import_module(path))]
        yield from (each for each in found if inspect.isclass(each) or inspect.isfunction(each))


@pytest.mark.parametrize(
    "module", ["", ".spec", ".arguments", ".hookspecs", ".errors", ".backend", ".testing"]
)
def test_the_reference_has_every_public_name(module):
    found = list(documented())
    home = import_module(f"hub{module}")
    for name in defined(home):
        assert any(getattr(home, name) is each for each in found), name


def test_every_page_with_a_program_is_executed():
    """By a test that names the page and executes."""
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("contrib/*/tests/test_*.py")]
    tests = [path.read_text() for path in files]
    executing = "".join(text for text in tests if "exec(" in text)
    pages = [page.name for page in DOCS.glob("*.md") if blocks(page.read_text())]
    assert [page for page in pages if page not in executing] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_the_repository_that_a_document_names_exist(document):
    named = re.findall(r"`((?:tests|docs|hub|benchmarks)/[\w./-]+)`", document.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []
