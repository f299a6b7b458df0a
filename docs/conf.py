"""Configuration of the documentation site: `tox run -e docs` writes it to `build/site`.

Sphinx reads the repository itself, so every relative link means the same here and on GitHub.
"""

import dataclasses
import inspect
import re
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

project = "hub"
version = release = installed("hub")
copyright = "the authors of hub, Apache-2.0"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc"]

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "docs/*.md",
    "plugins/*/README.md",
    "contrib/README.md",
    "contrib/*/README.md",
    "docs/tutorial/*/README.md",
]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # READMEs may begin with a smaller heading
html_theme = "furo"
html_title = f"hub {release}"
html_extra_path = ["site"]  # leads from the root of the site to docs/index.html

smartquotes = False  # "bf16" is code
default_role = "literal"  # docstrings have `code` between single backticks
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "exclude-members": "model_config",
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
nitpicky = True
# What plugins may import has to be on the site; torch's names and hub's inner ones are not.
PUBLIC = r"hub\.(spec|arguments|errors|hookspecs|backend)\.[a-zA-Z]\w*$"
nitpick_ignore_regex = [("py:.*", rf"(?!{PUBLIC}).*")]

SECTION = re.compile(r"^## (?P<title>.+)\n(?P<body>(?:(?!## ).*\n?)*)", re.MULTILINE)
PAGE = re.compile(r"\]\(([^)#:]+)\.md\)")
LINK = re.compile(r"\]\(([^)#:]+?)/?\)")


def contents(text: str) -> str:
    """Return the index with a hidden table of contents for each of its sections.

    GitHub shows `docs/index.md` as it is; Sphinx learns the order of pages from its links.
    """
    tables = [
        f"```{{toctree}}\n:caption: {section['title']}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"
        for section in SECTION.finditer(text)
        if (pages := PAGE.findall(section["body"]))
    ]
    return "\n".join([text, *tables])


def with_pages_for_folders(text: str, folder: Path) -> str:
    """Return the text with links to folders leading to their README, as GitHub shows it."""

    def page(link: re.Match[str]) -> str:
        readme = folder / link[1] / "README.md"
        return f"]({link[1]}/README.md)" if readme.is_file() else link[0]

    return LINK.sub(page, text)


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = with_pages_for_folders(source[0], Path(app.env.doc2path(page)).parent)
    if page == root_doc:
        source[0] = contents(source[0])


def _docstring(app: Sphinx, what: str, *about: Any) -> None:
    """Turn a Google-style docstring into reStructuredText.

    Unlike `sphinx.ext.napoleon`, not those of values, where it takes text before a colon as a type.
    """
    *about, lines = about
    if what not in {"attribute", "data", "property"}:
        lines[:] = GoogleDocstring(lines, Config(), app, what, *about).lines()


def _signature(_: Sphinx, what: str, __: str, thing: Any, *___: object) -> tuple[str, str] | None:
    """Return names and defaults only, for a class whose fields are documented with their types."""
    if what != "class" or not (dataclasses.is_dataclass(thing) or hasattr(thing, "model_fields")):
        return None
    parameters = inspect.signature(thing).parameters.values()
    plain = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
    return str(inspect.Signature(plain)), ""


def setup(app: Sphinx) -> None:
    """Connect what Sphinx calls while it reads."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
