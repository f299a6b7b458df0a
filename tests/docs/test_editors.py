"""The files that docs/editors.md shows are what its schemas and hub accept."""

import re

import pytest
import yaml
from jsonschema import Draft7Validator

from hub.cli.schema import config_schema, optimizer_schema
from hub.names import describe
from tests.docs.conftest import DOCS, blocks

PAGE = (DOCS / "editors.md").read_text()
WHOLE, OWN = blocks(PAGE, "yaml")


def test_the_programs_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training.yaml").write_text(WHOLE)
    found = {}
    for block in blocks(PAGE):
        exec(compile(block, "editors.md", "exec"), found)
    assert found["config"].optim_args == {"rank": 64, "betas": (0.9, 0.95)}


@pytest.mark.parametrize(
    ("text", "made"),
    [(WHOLE, config_schema()), (OWN, optimizer_schema(describe("galore_adamw")))],
    ids=["whole", "own"],
)
def test_the_files_are_valid_and_each_key_counts(text, made):
    checking = Draft7Validator(made)
    values = yaml.safe_load(text)
    assert checking.is_valid(values)
    assert all(not checking.is_valid({**values, key: [None]}) for key in values)


def test_the_first_lines_name_the_files_that_the_commands_write():
    written = re.findall(r"^hub schema .*> (\S+)$", PAGE, re.MULTILINE)
    named = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", PAGE, re.MULTILINE)
    assert written == named
