"""Write `docs/optimizers.md`, and the matrix in README.md, from a run of the conformance kit.

`python docs/generate_optimizers.py` runs every check of every installed optimizer on the CPU and
writes both; with `--check` it fails where they are not what the run says.
"""

import os
import re
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

# torchao compiles its steps: the same arithmetic, for minutes. Its own tests run them compiled.
if __name__ == "__main__":
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hub
from hub.names.catalogue import EXTRA_OF
from hub.names.layerwise_spec import LAYERWISE_SUFFIX
from hub.testing import CHECKS, Case, cases, run
from hub.testing.promises import IN_BACKWARD

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "optimizers.md"
README = ROOT / "README.md"
MARKS = "<!-- matrix -->\n", "<!-- end of matrix -->\n"
PROMISES = {
    "P1 class": ("is_optimizer",),
    "P2 lr": ("follows_lr", "own_lr"),
    "P3 decay, betas": ("decay", "hyperparameters", "names"),
    "P4 groups": ("covers", "late_group"),
    "P5 resume": ("resume", "plain_state", "distributed_state", "shares_nothing"),
    "P6 accumulation": ("accumulates", "closures"),
    "P7 clipping": ("clips", "norm_before_step", "leaves_gradients", "copies"),
    "P8 evaluation": ("modes", "evaluates"),
    "P10 trains": ("trains", "refused"),
    "P11 no trace": ("no_trace", "detaches", "threads"),
    "P12 bad input": ("bad_input", "other_checkpoint", "other_shapes"),
}
KEPT, KNOWN, BROKEN, NONE = "✓", "(✓)", "✗", "–"
INTRODUCTION = """\
What each optimizer is, and which of hub's promises (see [the design](design.md)) it was seen to
keep. `docs/generate_optimizers.py` writes this page from a run of the conformance kit on the CPU,
in fp32 and bf16; `tox run -e conformance` repeats it, and so does `hub check NAME`.
"""
LEGEND = f"""
{KEPT} all checks pass in every precision that the optimizer declares. Where it does not declare
one, building is refused, which is a check as well. {KNOWN} all but what the optimizer's entry names
as a known failure. The last column is for the form that steps
inside the backward pass, `NAME_layerwise`: all of these checks again, and that it gives the same
bits as the eager form, frees each gradient at once and never steps twice; {NONE} there is none.
"""
COLUMNS = (*PROMISES, "layerwise")
HEAD = f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}"

Results = dict[Case, bool]


def measure() -> Results:
    """Run everything; say on standard error what is broken."""
    results = {}
    for case in cases(hub.list_optimizers()):
        try:
            run(case.check, case.subject)
        except Exception:
            results[case] = bool(case.known)
            if not case.known:
                sys.stderr.write(f"{case.id}\n{traceback.format_exc()}\n")
        else:
            results[case] = not case.known
    return results


def page(results: Results) -> str:
    """Return the text of `docs/optimizers.md`."""
    rows = [
        f"| `{name}` | {' | '.join(_cells(results, [name]))} |" for name in hub.list_optimizers()
    ]
    parts = ["# Optimizers\n", INTRODUCTION, HEAD, *rows, LEGEND]
    return "\n".join([*parts, *(_entry(name) for name in hub.list_optimizers())])


def summary(results: Results) -> str:
    """Return the matrix of README: a row a distribution."""
    names = defaultdict(list)
    for name in hub.list_optimizers():
        names[f"hub-{EXTRA_OF[name]}" if name in EXTRA_OF else "built in"].append(name)
    rows = [f"| {owner} | {' | '.join(_cells(results, owned))} |" for owner, owned in names.items()]
    return "\n".join([HEAD, *rows]) + "\n"


def _cells(results: Results, names: list[str]) -> list[str]:
    def cell(applies: Callable[[Case], bool]) -> str:
        found = {case: kept for case, kept in results.items() if applies(case)}
        if not found:
            return NONE
        if not all(found.values()):
            return BROKEN
        return KNOWN if any(case.known for case in found) else KEPT

    forms = [name + LAYERWISE_SUFFIX for name in names]
    return [
        *(
            cell(lambda case, checks=checks: case.subject.name in names and case.check in checks)
            for checks in PROMISES.values()
        ),
        cell(
            lambda case: (
                case.subject.name in forms
                or (case.subject.name in names and case.check in IN_BACKWARD)
            )
        ),
    ]


def _entry(name: str) -> str:
    spec = hub.describe(name)
    facts = [
        f"builds a class of {spec.package} ({spec.license})",
        f"trains in {', '.join(sorted(spec.precisions))}",
        *([f"traits: {', '.join(sorted(spec.traits))}"] if spec.traits else []),
        *([f"[paper]({spec.paper})"] if spec.paper else []),
        f"[home page]({spec.homepage})",
    ]
    lines = [f"## {name}\n", f"{spec.summary.rstrip('.')}.\n", *(f"- {fact}" for fact in facts)]
    known = [f"known failure of `{check}`: {why}." for check, why in spec.known_failures.items()]
    if spec.notes or known:
        lines += ["", *(f"- {note}" for note in (*spec.notes, *known))]
    return "\n".join(lines) + "\n"


def with_matrix(text: str, matrix: str) -> str:
    """Return README's text with the matrix between its marks."""
    start, end = MARKS
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: start + matrix + end, text, flags=re.DOTALL)


def main() -> int:
    """Write, or check; return the exit status."""
    results = measure()
    covered = {check for checks in PROMISES.values() for check in checks} | IN_BACKWARD
    if covered != set(CHECKS):
        raise ValueError(f"no column has {covered ^ set(CHECKS)}")
    texts = {PAGE: page(results), README: with_matrix(README.read_text(), summary(results))}
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            sys.stderr.write(f"{path.name} is not what the run says\n")
    else:
        for path, text in texts.items():
            path.write_text(text)
    broken = [case.id for case, kept in results.items() if not kept]
    print(f"{len(results) - len(broken)} passed, {len(broken)} failed")
    return int(bool(broken or ("--check" in sys.argv and stale)))


if __name__ == "__main__":
    sys.exit(main())
