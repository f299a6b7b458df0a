"""What docs/write-a-plugin.md shows: files, and what commands print. Imports no torch."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "write-a-plugin.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
"""What the page shows of each command's output."""
_FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def files(project: str) -> dict[str, str]:
    """Return the files of a project, by their path in it."""
    found = _FILE.findall(PAGE)
    assert len(dict(found)) == len(found)
    return {
        title.removeprefix(f"{project}/"): text
        for title, text in found
        if title.startswith(f"{project}/")
    }


def assert_shown(command: str, output: str) -> None:
    """Assert that an output has what the page shows of it, in order; "..." is anything."""
    rest = " ".join(output.split())
    for part in filter(None, (" ".join(part.split()) for part in COMMANDS[command].split("...\n"))):
        _, found, rest = rest.partition(part)
        assert found, f"{part}\nis not in\n{output}"
