"""The documents, and what tests read in them."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

from torch import nn

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
WIDTH = 128  # the minimum for APOLLO's default rank


class Classifier(nn.Module):
    """An encoder of attention and MLP, and a classifier; its forward pass returns the loss."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict(
            {
                "embed": nn.Linear(8, WIDTH),
                "attn": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)),
                "mlp": nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)),
            }
        )
        self.classifier = nn.Linear(WIDTH, 3)

    def forward(self, features, label):
        hidden = self.encoder["embed"](features)
        hidden = self.encoder["mlp"](self.encoder["attn"](hidden))
        return nn.functional.cross_entropy(self.classifier(hidden), label)


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
