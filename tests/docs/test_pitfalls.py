"""docs/pitfalls.md: its programs run, and each pitfall names where it was seen."""

import re

from tests.docs.conftest import DOCS, blocks

PAGE = (DOCS / "pitfalls.md").read_text()
THREAD = re.compile(
    r"\[[^\]]*#(\d+)\]\(https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/(\d+)\)"
)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"pitfalls.md, block {number}", "exec"), namespace)


def test_each_pitfall_names_where_it_was_seen():
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        threads = THREAD.findall(section)
        assert threads, section.splitlines()[0]
        assert all(label == number for label, number in threads)
    assert len(re.findall(r"\]\(https://", PAGE)) == len(THREAD.findall(PAGE))
