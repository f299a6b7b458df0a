"""The documents, and what tests read in them."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(ROOT.glob("contrib/*/README.md")),
]
DOCUMENTS = [
    *READMES,
    ROOT / "CHANGELOG.md",
    ROOT / "contrib/README.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("tutorial/*/README.md")),
]


def blocks(text: str, language: str = "python") -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def generator(name: str) -> dict[str, Any]:
    """Return the names that a script of `docs/` defines, which imports others from there."""
    sys.path.insert(0, str(DOCS))
    try:
        return runpy.run_path(str(DOCS / f"{name}.py"))
    finally:
        sys.path.remove(str(DOCS))
