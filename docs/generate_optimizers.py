"""Write `docs/optimizers.md`, and what README says of the same run, from the conformance kit.

`python docs/generate_optimizers.py` runs every check of every installed optimizer on the CPU and
writes both; with `--check` it fails where they are not what the run says.
"""

import sys
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from generating import DOCS, ROOT, between_marks, code, finish, step_uncompiled

if __name__ == "__main__":
    step_uncompiled()

import hub
from hub.names.catalogue import EXTRA_OF
from hub.names.layerwise_spec import has_layerwise_form
from hub.spec import OptimizerSpec, Trait
from hub.testing import CHECKS, Case, cases, run

PAGE = DOCS / "optimizers.md"
README = ROOT / "README.md"
INTRODUCTION = """\
# Optimizers

<!-- Written by docs/generate_optimizers.py: change that, or the specs. -->

What each name builds, and what to know before using it. [Which optimizer?](which-optimizer.md)
helps to choose one; `hub show NAME` prints its arguments.

"""
RUN = """
`tox run -e conformance` repeats this run on a CPU, and `hub check NAME` runs it for one name.
"""

Results = dict[Case, bool]


def measure() -> Results:
    """Run everything; say on standard error what is broken."""
    results = {}
    for case in cases(hub.list_optimizers(), processes=2):
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
    packages = defaultdict(list)
    for name in hub.list_optimizers():
        packages[hub.describe(name).package].append(hub.describe(name))
    order = sorted(packages, key=lambda package: (package not in {"torch", "hub"}, package))
    families = [_family(package, packages[package]) for package in order]
    return INTRODUCTION + statement(results) + RUN + "".join(families)


def statement(results: Results) -> str:
    """Return which optimizers keep hub's promises, and which do not."""
    specs = [hub.describe(name) for name in hub.list_optimizers()]
    lines = [
        *_known_failures(specs),
        *(
            f"- `{s.name}` has no layerwise form: {s.why_not_layerwise}."
            for s in specs
            if _eager_only(s)
        ),
        *(f"- **{case.id} is broken.**" for case, kept in results.items() if not kept),
    ]
    return f"""\
All {len(specs)} optimizers pass all {len(CHECKS)} checks of the
[conformance kit](write-a-plugin.md#test-it) that apply to them, in fp32 and bf16, in the eager and
in the layerwise form. Where one does not declare a precision, hub refuses to build it. Exceptions:

""" + "".join(f"{line}\n" for line in lines)


def summary(results: Results) -> str:
    """Return the same for README, whose links start elsewhere."""
    return statement(results).replace("](", "](docs/")


def _known_failures(specs: Sequence[OptimizerSpec]) -> list[str]:
    failures: dict[tuple[str, str], list[str]] = defaultdict(list)
    for spec in specs:
        for key, why in spec.known_failures.items():
            check, _, precision = key.partition("-")
            failures[f"`{check}` fails{precision and f' in {precision}'}", why].append(spec.name)
    return [f"- {code(who)}: {fails}, because {why}." for (fails, why), who in failures.items()]


def _eager_only(spec: OptimizerSpec) -> bool:
    return not has_layerwise_form(spec) and Trait.STEPS_IN_BACKWARD not in spec.traits


def _family(package: str, specs: Sequence[OptimizerSpec]) -> str:
    precisions = {s.name: [f"Trains in {', '.join(sorted(s.precisions))}."] for s in specs}
    traits = {s.name: [f"Traits: {code(sorted(s.traits))}."] if s.traits else [] for s in specs}
    notes = {spec.name: spec.notes for spec in specs}
    lines = [
        f"\n## {package}\n",
        f"{_origin(specs)}\n",
        "| name | | |",
        "|---|---|---|",
        *map(_row, specs),
        "",
        *(bullet for values in (precisions, traits, notes) for bullet in _bullets(values)),
    ]
    return "\n".join(lines) + "\n"


def _origin(specs: Sequence[OptimizerSpec]) -> str:
    (terms,) = {spec.license for spec in specs}
    homes = dict.fromkeys(spec.homepage for spec in specs)
    where = ", ".join(f"[{home.split('://')[1].rstrip('/')}]({home})" for home in homes)
    extra = EXTRA_OF.get(specs[0].name)
    if extra is None:
        return f"Built in. {where}, {terms}."
    (readme,) = ROOT.glob(f"*/hub-{extra}/README.md")
    return f"By [hub-{extra}](../{readme.relative_to(ROOT)}), from {where}, {terms}."


def _row(spec: OptimizerSpec) -> str:
    paper = f"[paper]({spec.paper})" if spec.paper else ""
    return f"| `{spec.name}` | {spec.summary.rstrip('.')} | {paper} |"


def _bullets(values: Mapping[str, Iterable[str]]) -> list[str]:
    """Return each value once: first those of all names, then those of some with their names."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, each in values.items():
        for value in each:
            owners[value].append(name)
    everybody = list(values)
    ordered = sorted(owners.items(), key=lambda item: item[1] != everybody)
    return [
        f"- {value}" if who == everybody else f"- {code(who)}: {value}" for value, who in ordered
    ]


def main() -> int:
    """Write, or check; return the exit status."""
    results = measure()
    current = finish(
        {PAGE: page(results), README: between_marks(README.read_text(), summary(results))}
    )
    broken = [case.id for case, kept in results.items() if not kept]
    print(f"{len(results) - len(broken)} passed, {len(broken)} failed")
    return int(bool(broken) or not current)


if __name__ == "__main__":
    sys.exit(main())
