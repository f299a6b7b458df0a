"""docs/plugin-reference.md says what the docstrings of the plugin contract say."""

import re
import runpy
from pathlib import Path

import pytest

from hub.testing import CHECKS
from hub.testing.schedule_checks import CHECKS as SCHEDULE_CHECKS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "plugin-reference.md").read_text()
GENERATOR = runpy.run_path(str(DOCS / "generate_plugin_reference.py"))


def test_the_page_is_current():
    assert GENERATOR["page"]() == PAGE


@pytest.mark.parametrize("of", GENERATOR["DATA"], ids=lambda of: of.__name__)
def test_every_field_says_what_it_is(of):
    fields = GENERATOR["attributes"](of)
    assert {field.name for field in fields} == set(of.__dataclass_fields__)
    assert not [field.name for field in fields if not field.text]


def test_every_row_says_something():
    rows = re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)
    assert len(rows) > 100
    assert not [row for row in rows if re.search(r"\|\s*\|$", row)]
    for name in (*CHECKS, *SCHEDULE_CHECKS):
        assert f"| `{name}` |" in PAGE
