"""Write `docs/mixed.json`: what the kit says of optimizers that share a model, by pairs.

`python docs/measure_mixed.py` takes half an hour; names on its command line limit it to pairs that
begin with these, and leave the others as they are.
"""

import json
import sys

from generating import DOCS

from hub.errors import HubError
from hub.spec import Trait
from hub.testing import CHECKS, Subject, run
from hub.testing.promises import EAGER, IN_BACKWARD, IN_PROCESSES

TABLE = DOCS / "mixed.json"
NAMES = (
    "adamw_torch",
    "adamw_torch_layerwise",
    "adafactor",
    "sgd",
    "apollo_adamw",
    "galore_adamw",
    "schedule_free_adamw",
    "stable_adamw",
    "flash_adamw",
    "adamw_8bit",
    "lomo",
    "muon",
)
"""One of each kind."""
PAIRS = [(first, second) for first in NAMES for second in NAMES if first != second]
LEFT_OUT = {"names", "refused", *IN_PROCESSES}
"""`names` renames the parameters that the rule matches."""


def checks_of(subject: Subject) -> list[str]:
    """Return the checks that apply to a pair: those of layerwise forms if both are."""
    others = set() if subject.in_backward else set(IN_BACKWARD)
    if subject.any_has(Trait.STEPS_IN_BACKWARD):
        others |= EAGER
    specs = (subject.spec, *subject.others.values())
    known = {key for spec in specs for key in spec.known_failures}
    own = {check for check in CHECKS if {check, f"{check}-{subject.precision}"} & known}
    return [check for check in CHECKS if check not in LEFT_OUT | others | own]


def outcome(check: str, subject: Subject) -> str:
    """Return "holds", "refused: " and the reason, or "wrong: " and what."""
    try:
        run(check, subject)
    except HubError as error:
        return f"refused: {error.what}"
    except AssertionError as error:
        return f"wrong: {str(error).splitlines()[0]}"
    return "holds"


def measure(first: str, second: str) -> dict[str, dict[str, str]]:
    """Return what does not hold, by precision and check."""
    found = {}
    for precision in ("fp32", "bf16"):
        subject = Subject(first, precision, partner=second)
        outcomes = {check: outcome(check, subject) for check in checks_of(subject)}
        found[precision] = {check: text for check, text in outcomes.items() if text != "holds"}
    return found


if __name__ == "__main__":
    table = json.loads(TABLE.read_text()) if TABLE.exists() and sys.argv[1:] else {}
    for first, second in PAIRS:
        if not sys.argv[1:] or first in sys.argv[1:]:
            table[f"{first} + {second}"] = measure(first, second)
    ordered = {f"{a} + {b}": table[f"{a} + {b}"] for a, b in PAIRS if f"{a} + {b}" in table}
    TABLE.write_text(json.dumps(ordered, indent=1) + "\n")
