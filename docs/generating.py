"""What the scripts that write pages share."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARKS = "<!-- generated -->\n", "<!-- end of generated -->\n"


def step_uncompiled() -> None:
    """Turn torchao's compiling off, before torch is imported: the same arithmetic, for minutes."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def between_marks(text: str, new: str, part: str = "") -> str:
    """Return a page's text with other lines between its marks, or those of one part."""
    start, end = (
        mark.replace("generated", f"generated: {part}") if part else mark for mark in MARKS
    )
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: start + new + end, text, flags=re.DOTALL)


def code(names: list[str] | tuple[str, ...]) -> str:
    """Return names as code, between commas."""
    return ", ".join(f"`{name}`" for name in names)


def finish(texts: Mapping[Path, str]) -> bool:
    """Write pages; with `--check` only compare them. Return whether all are now as they should."""
    if "--check" not in sys.argv:
        for path, text in texts.items():
            path.write_text(text)
        return True
    stale = [path for path, text in texts.items() if path.read_text() != text]
    for path in stale:
        sys.stderr.write(f"{path.name} is not what {Path(sys.argv[0]).name} writes now\n")
    return not stale
