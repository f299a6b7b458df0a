"""Every fact that code or tests cite by its section of docs/upstream.md is there."""

import re
import tokenize

from tests.docs.conftest import DOCS, ROOT

CITED = re.compile(r"(?<![\w./])(10\.[0-9]|[0-9][a-g])(?!\w|\.[0-9]|-[0-9])(?=[:.,;)]| and )")
SECTION = re.compile(r"^### (\S+) ", re.MULTILINE)


def citations(path):
    """Return the sections that the comments and texts of a module cite."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    prose = [t.string for t in tokens if t.type in {tokenize.STRING, tokenize.COMMENT}]
    return {section for text in prose for section in CITED.findall(text)}


def citing():
    """Return the modules that name the page, and what each cites."""
    folders = ("hub", "tests", "plugins", "contrib")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    naming = [path for path in paths if "docs/upstream.md" in path.read_text()]
    return {path.name: citations(path) for path in naming if path.parent.name != "docs"}


def test_every_cited_section_is_there():
    sections = set(SECTION.findall((DOCS / "upstream.md").read_text()))
    found = citing()
    assert found["test_vs_transformers.py"] >= {"10.1", "10.2", "1e", "2c", "3c", "5c", "6b", "6e"}
    for name, cited in found.items():
        assert cited <= sections, name


def test_sections_are_in_order():
    def key(section):
        return tuple(
            int(part) if part.isdigit() else ord(part) for part in re.findall(r"\d+|[a-g]", section)
        )

    sections = SECTION.findall((DOCS / "upstream.md").read_text())
    assert sections == sorted(set(sections), key=key)


def test_citations_are_told_from_numbers(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('why = "10.1 and 5c: eps of 1e-6; 2c: no"  # 8e.\nx = 1e-3\n"""6b."""\n')
    assert citations(module) == {"10.1", "5c", "2c", "8e", "6b"}
