"""What the core says of plugins that are not installed is what the plugins say of themselves."""

import importlib.metadata
import tomllib
from pathlib import Path

from hub.names.catalogue import NAMES_BY_EXTRA

ROOT = Path(__file__).parents[2]


def metadata(path):
    return tomllib.loads((path / "pyproject.toml").read_text())["project"]


def test_names_are_those_of_the_plugins():
    plugins = {
        path.name.removeprefix("hub-"): tuple(
            sorted(metadata(path)["entry-points"]["hub.optimizers"])
        )
        for path in sorted([*ROOT.glob("plugins/hub-*"), *ROOT.glob("contrib/hub-*")])
    }
    assert plugins == NAMES_BY_EXTRA


def test_every_plugin_has_its_extra():
    extras = metadata(ROOT)["optional-dependencies"]
    for extra in NAMES_BY_EXTRA:
        assert extras[extra] == [f"hub-{extra}>=2026.11"]
    assert extras["all"] == [f"hub[{','.join(sorted(extras.keys() - {'all'}))}]"]


def test_the_version_is_one():
    import hub

    assert hub.__version__ == importlib.metadata.version("hub")
