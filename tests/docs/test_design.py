"""The drawing of the layers is the contract, and the folders are all in it."""

import re
import tomllib

from .conftest import DOCS, ROOT

PAGE = (DOCS / "design.md").read_text(encoding="utf-8")
LAYERS = PAGE.partition("## Layers")[2]


def contract():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return next(each for each in contracts if each["type"] == "layers")["layers"]


def entries():
    return {
        path.stem for path in (ROOT / "hub").iterdir() if path.is_dir() or path.suffix == ".py"
    } - {"__init__", "__pycache__"}


def test_the_drawing_is_the_contract():
    (drawing,) = re.findall(r"```text\n(.*?)```", LAYERS, re.DOTALL)
    assert drawing.splitlines() == contract()


def test_every_entry_of_the_package_has_its_layer():
    assert {name for row in contract() for name in row.split(" | ")} == entries()


def test_every_folder_is_explained():
    explained = set(re.findall(r"`(\w+)/`", LAYERS))
    assert explained - {"hub"} == {each for each in entries() if (ROOT / "hub" / each).is_dir()}


def test_the_top_level_fits_in_a_list():
    assert len(entries() | {"__init__", "py.typed"}) <= 30
