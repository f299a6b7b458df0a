"""What a plugin may import: docs/design.md lists it, import-linter forbids the rest."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(
    path.parent
    for folder in ("plugins", "contrib")
    for path in ROOT.glob(f"{folder}/*/src/*/__init__.py")
)
DESIGN = (ROOT / "docs/design.md").read_text()
TABLE = DESIGN.partition("### What a plugin may import\n")[2].partition("\n#")[0]
LISTED = set(re.findall(r"^\| `(hub[.\w]*)` \|", TABLE, re.MULTILINE))


@pytest.fixture(scope="module")
def contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (found,) = [c for c in settings["contracts"] if "docs/design.md" in c["name"]]
    assert set(found["source_modules"]) < set(settings["root_packages"])
    return found


def modules_of_hub():
    for path in (ROOT / "hub").iterdir():
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__":
            yield f"hub.{path.stem}"


def test_the_list_and_the_contract_share_out_all_modules(contract):
    forbidden = set(contract["forbidden_modules"]) - {"hub.arguments.*", "hub.spec.*"}
    assert LISTED - {"hub"} | forbidden == set(modules_of_hub())
    assert not LISTED & forbidden


def test_the_contract_is_for_every_plugin(contract):
    assert contract["source_modules"] == sorted(path.name for path in PACKAGES)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_plugins_import_from_listed_modules_by_name(package):
    """The contract holds them too; `import hub.groups` and relative imports it would not tell."""
    found = set()
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(name.name.split(".")[0] == "hub" for name in node.names), path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hub":
                found.add(node.module)
    updates = {module for module in found if module.startswith("hub.updates.")}
    assert found - updates <= LISTED - {"hub"}
    assert "hub.hookspecs" in found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_hooks_stay_short(package):
    assert len((package / "hooks.py").read_text().splitlines()) <= 150
