"""Write in `docs/mixed.md` what is refused of pairs of optimizers, from `docs/mixed.json`.

With `--check` it fails where the page says something else.
"""

import json
import re
import sys
from collections import defaultdict

from generating import DOCS, between_marks, code, finish

PAGE = DOCS / "mixed.md"
TABLE = DOCS / "mixed.json"


def without_names(text: str, pair: str) -> str:
    """Return what an outcome says of any pair: "one" for the name that comes first in it."""
    found = re.findall("|".join(sorted(pair.split(" + "), key=len, reverse=True)), text)
    for name, instead in zip(dict.fromkeys(found), ("one", "the other"), strict=False):
        text = re.sub(rf"\b{name}\b", instead, text)
    return text


def summary(table: dict[str, dict[str, dict[str, str]]]) -> str:
    """Return a row for each outcome that is not "holds": the checks and the pairs."""
    pairs: dict[str, set[str]] = defaultdict(set)
    checks: dict[str, set[str]] = defaultdict(set)
    for pair, by_precision in table.items():
        for outcomes in by_precision.values():
            for check, text in outcomes.items():
                said = without_names(text, pair)
                pairs[said].add(pair)
                checks[said].add(check)
    lines = [
        f"{len(table)} pairs were measured.",
        "",
        "| outcome | checks | pairs |",
        "|---|---|---|",
    ]
    for text in sorted(pairs):
        names = ", ".join(sorted(pairs[text]))
        lines.append(f"| {text} | {code(sorted(checks[text]))} | {names} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = between_marks(PAGE.read_text(), summary(json.loads(TABLE.read_text())))
    sys.exit(not finish({PAGE: text}))
