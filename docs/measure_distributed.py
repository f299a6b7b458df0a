"""Write `docs/distributed.json`: what every optimizer does under every strategy, measured.

`python docs/measure_distributed.py` takes minutes; names on its command line limit it to these, and
leave the others as they are. tests/distributed/test_matrix.py holds each cell to this.
"""

import json
import sys

from generating import DOCS

import hub
from hub.names.registry import default_registry
from hub.testing import Subject
from hub.testing.matrix import PRECISIONS, forms
from hub.testing.process_checks import refusal
from hub.testing.process_model import EVEN
from hub.testing.strategies import Strategy

TABLE = DOCS / "distributed.json"
Row = dict[str, str | dict[str, str]]


def measure(name: str) -> Row:
    """Return what a name does under each strategy: "equal", or "refused: " and the reason.

    By precision, where that makes a difference. What is wrong is "wrong: " and what.
    """
    found: Row = {}
    for strategy in Strategy:
        ranks = 4 if strategy is Strategy.HSDP else 2
        cells = {p: outcome(Subject(name, p, processes=ranks), strategy) for p in PRECISIONS}
        same = len(set(cells.values())) == 1
        found[strategy] = cells[PRECISIONS[0]] if same else cells
    return found


def outcome(subject: Subject, strategy: Strategy) -> str:
    """Return what one cell of the table says."""
    try:
        reason = refusal(subject, EVEN, strategy)
    except AssertionError as error:
        return f"wrong: {str(error).splitlines()[0]}"
    return f"refused: {reason}" if reason else "equal"


if __name__ == "__main__":
    names = forms(sys.argv[1:] or hub.list_optimizers(), default_registry())
    before = json.loads(TABLE.read_text()) if TABLE.exists() and sys.argv[1:] else {}
    table = before | {name: measure(name) for name in names}
    TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")
