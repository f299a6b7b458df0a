"""The class or function that a plugin is written for, and the distribution it comes from."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from hub import backend
from hub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_LICENSE = 100
"""In characters; some distributions put the whole text into that field."""


@dataclass(frozen=True)
class Upstream:
    """What builds the optimizer, and where it comes from."""

    module: str
    name: str
    target: Callable[..., Any]
    distribution: metadata.Distribution

    @property
    def path(self) -> str:
        """The path that a spec's `factory` has."""
        return f"{self.module}:{self.name}"

    @property
    def package(self) -> str:
        """The distribution's name."""
        return str(self.distribution.metadata["Name"])

    @property
    def requirement(self) -> str:
        """The distribution at the installed version or a later one."""
        return f"{self.package}>={self.distribution.version.partition('+')[0]}"

    @property
    def license(self) -> str:
        """Its license, as far as its metadata has one in a few words."""
        found: Any = self.distribution.metadata
        text = found.get("License-Expression") or found.get("License") or ""
        if text and len(text) <= LONGEST_LICENSE and text.isprintable():
            return str(text)
        classifiers = found.get_all("Classifier") or ()
        of_licenses = [one for one in classifiers if one.startswith("License ::")]
        return of_licenses[0].rpartition(" :: ")[2] if of_licenses else "unknown"

    @property
    def homepage(self) -> str:
        """Its page, or that of its code."""
        found: Any = self.distribution.metadata
        urls = dict(one.split(", ", 1) for one in found.get_all("Project-URL") or () if ", " in one)
        named = {label.strip().lower(): url for label, url in urls.items()}
        for label in ("homepage", "repository", "source", "source code"):
            if label in named:
                return str(named[label])
        return str(found.get("Home-page") or "")

    @property
    def summary(self) -> str:
        """The first line of its documentation, or its name."""
        first = (inspect.getdoc(self.target) or "").strip().partition("\n")[0]
        return first if first.isascii() else ""


def find(path: str) -> Upstream:
    """Import what a path such as "prodigyopt:Prodigy" names.

    Raises:
        HubError: The path has another form, the module or the name in it does not exist, or no
            installed distribution has it.
    """
    module, colon, name = path.partition(":")
    if not (colon and name and all(part.isidentifier() for part in (*module.split("."), name))):
        package, _, last = path.replace(":", ".").rpartition(".")
        raise HubError(
            f"'{path}' does not name a class in a module",
            where="MODULE:CLASS",
            fix=f"write {package or 'module'}:{last or 'Class'}",
        )
    return Upstream(module, name, _target(module, name), _distribution(module))


def _target(module: str, name: str) -> Callable[..., Any]:
    try:
        found = backend.load(module)
    except Exception as error:  # whatever a stranger's module raises
        raise HubError(
            f"{module} cannot be imported: {type(error).__name__}: {error}",
            where=module,
            fix="install what it belongs to, or correct the name",
        ) from error
    target = getattr(found, name, None)
    if not callable(target):
        near = get_close_matches(name, [one for one in dir(found) if one[0] != "_"], n=3)
        raise HubError(
            f"{module} has no class or function '{name}'",
            where=module,
            fix=f"did you mean {' or '.join(near)}?" if near else "",
        )
    return target  # type: ignore[no-any-return]


def _distribution(module: str) -> metadata.Distribution:
    top = module.partition(".")[0]
    owners = metadata.packages_distributions().get(top)
    found = metadata.distribution(owners[0]) if owners else _editable(top)
    if found is None:
        raise HubError(
            f"no installed distribution has {top}, so a plugin cannot require it",
            where=module,
            fix="install its project first; `pip install -e` will do",
        )
    return found


def _editable(top: str) -> metadata.Distribution | None:
    """Return the distribution whose project a module lies in; its metadata has no list of them."""
    file = getattr(sys.modules[top], "__file__", None)
    for distribution in metadata.distributions():
        origin = _project(distribution)
        if file and origin and Path(file).resolve().is_relative_to(origin):
            return distribution
    return None


def _project(distribution: metadata.Distribution) -> Path | None:
    """Return the folder that a distribution was installed from, if it is editable."""
    import json

    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(origin["url"]).path)).resolve()
