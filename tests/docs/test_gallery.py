"""docs/gallery.md is what the stored studies say, and these are small and whole."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from helpers import studies
from helpers.true_claims import check_claims

from hub.compare.claims import claims
from hub.compare.report.rows import rows
from hub.compare.result import Status, to_json
from hub.compare.results_file import load
from hub.compare.study_file import settings_of
from tests.docs.conftest import DOCS, generator

SCRIPT = generator("generate_gallery")
PAGE = DOCS / "gallery.md"
ENTRIES = SCRIPT["entries"]()


@pytest.fixture(scope="module")
def study():
    """Four contenders with long curves and trials; one diverges, in a trial too."""
    losses = {"a": [2.0, 2.1, 2.05], "b": [2.3, 2.2, 2.4], "c": [2.5, Status.DIVERGED, 2.4]}
    made = studies.study(losses)
    long = tuple(studies.outcome("d", seed, 3.0, steps=400) for seed in range(3))
    trials = (
        studies.outcome("d", 0, 3.1, trial=0, steps=400),
        studies.outcome("d", 0, trial=1, status=Status.DIVERGED, chosen={"lr": 10.0}, done=7),
    )
    return replace(made, outcomes=(*made.outcomes, *trials, *long))


def test_the_page_is_what_is_generated():
    command = [sys.executable, DOCS / "generate_gallery.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_is_claimed_follows_from_the_numbers(entry):
    check_claims(load(entry))


def test_a_changed_number_changes_the_page(study):
    text = SCRIPT["section"]("2026-01-02-some-study", study)
    worse = [
        replace(one, evaluations=(*one.evaluations[:-1], one.evaluations[-1]._replace(loss=9.0)))
        if (one.run.contender, one.run.seed) == ("a", 1)
        else one
        for one in study.outcomes
    ]
    assert text != SCRIPT["section"]("2026-01-02-some-study", replace(study, outcomes=tuple(worse)))


def test_a_section_has_what_is_needed_to_judge_and_repeat_it(study):
    text = SCRIPT["section"]("2026-01-02-some-study", study)
    assert text.startswith("## Some study, 2026-01-02\n")
    assert "x86_64 CPU, 2 threads" in text
    assert "torch 2.13.0" in text
    for claim in claims(study, study.tasks[0]):
        assert f"- {claim.sentence()}\n" in text
    assert re.search(r"^\| `c` \| 2 of 3 \|", text, re.MULTILINE)
    (file,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert "contenders:" in file


def test_thinned_results_say_the_same(study):
    thin = SCRIPT["thin"](study)
    (task,) = study.tasks
    assert claims(thin, task) == claims(study, task)
    for before, after in zip(rows(study, task), rows(thin, task), strict=True):
        assert (after.loss, after.ended) == (before.loss, before.ended)
    assert [one.evaluations for one in thin.outcomes] == [o.evaluations for o in study.outcomes]


def test_thinned_curves_keep_their_ends(study):
    for before, after in zip(study.outcomes, SCRIPT["thin"](study).outcomes, strict=True):
        tried = before.run.trial is not None
        assert len(after.curve) <= (2 if tried else SCRIPT["POINTS"])
        if not tried or before.loss is None:
            assert after.curve[-1].step == before.curve[-1].step
        if not tried:
            assert after.curve[0].step == 1


def test_a_stored_study_is_read_back(study, tmp_path, monkeypatch):
    monkeypatch.setitem(SCRIPT["store"].__globals__, "FOLDER", tmp_path)
    SCRIPT["store"](study, "some-study")
    (folder,) = SCRIPT["entries"]()
    assert SCRIPT["ENTRY"].fullmatch(folder.name)
    assert to_json(load(folder)) == to_json(SCRIPT["thin"](study))
    with pytest.raises(SystemExit):
        SCRIPT["store"](study, "../Some study")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda path: path.name)
def test_entries_are_small_and_whole(entry):
    assert SCRIPT["ENTRY"].fullmatch(entry.name)
    assert sum(path.stat().st_size for path in entry.iterdir()) < 300_000
    results = load(entry)
    assert not results.interrupted
    assert SCRIPT["thin"](results) == results
    settings = settings_of(json.loads(json.dumps(results.study)), entry.name)
    assert tuple(one.label for one in settings.contenders) == results.contenders


def test_every_picture_is_there_and_on_the_page():
    shown = set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE.read_text()))
    drawn = {str(path.relative_to(DOCS)) for path in DOCS.glob("gallery/*/*.png")}
    assert shown == drawn
