"""docs/schedulers.md says and shows what the schedules are."""

import pytest

import hub
from tests.docs.conftest import DOCS, blocks, generator

GENERATOR = generator("generate_schedulers")


def test_the_text_is_current():
    assert GENERATOR["page"]() == (DOCS / "schedulers.md").read_text()


@pytest.mark.parametrize("name", hub.list_schedulers())
def test_the_numbers_behind_the_picture_are_current(name):
    picture = (DOCS / "pictures" / f"{name}.svg").read_text()
    assert f"<dc:description>{GENERATOR['numbers'](name)}</dc:description>" in picture
    assert GENERATOR["command"](name).removeprefix("hub lr ") in picture


def test_there_is_no_picture_of_anything_else():
    names = {path.stem for path in (DOCS / "pictures").iterdir()}
    assert names == set(hub.list_schedulers())


def test_its_example_runs():
    (example,) = blocks((DOCS / "schedulers.md").read_text())
    exec(compile(example, "schedulers.md", "exec"), {})
