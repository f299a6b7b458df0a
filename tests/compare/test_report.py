"""The files of a report, and the results that are read back from them."""

import csv
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from helpers import studies

from hub.compare import formatting, report, results_file
from hub.compare.report import curves, drawings, looks, page, picture, sheet
from hub.compare.report.pictures import Pictures
from hub.compare.report.rows import rows
from hub.compare.result import Status, from_json, to_json
from hub.errors import HubError

DIVERGED, FAILED, NOT_STARTED = Status.DIVERGED, Status.FAILED, Status.NOT_STARTED
SCHEMA_FILE = "docs/compare-results.schema.json"
VOID = {"meta", "wbr"}
SPACED = {"dd", "td", "small"}


class Page(HTMLParser):
    """Collects texts, and checks that tags are closed in order and point nowhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.texts, self.tags = [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(value and "//" in value for _, value in attrs)
        if tag in SPACED:
            self.texts.append(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.texts).split())


@pytest.fixture(scope="module")
def small():
    """Two contenders and two seeds; the second diverges once."""
    return studies.study({"a": [2.0, 2.1], "b": [2.3, DIVERGED]})


@pytest.fixture(scope="module")
def written(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    report.write(small, folder)
    return folder


def read(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


def test_these_files_are_written(written):
    assert sorted(str(path.relative_to(written)) for path in written.rglob("*")) == [
        "pictures",
        "pictures/llama-held-out-loss-steps.png",
        "pictures/llama-held-out-loss.png",
        "pictures/llama-memory.png",
        "pictures/llama-training-loss-steps.png",
        "pictures/llama-training-loss-time.png",
        "report.html",
        "results.json",
        "trainings.csv",
    ]
    for path in (written / "pictures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG\r\n")


def test_results_are_read_back(small, written):
    found = results_file.load(written / "results.json")
    assert to_json(found) == to_json(small)
    good, bad = found.outcomes[0], found.outcomes[3]
    assert good == replace(small.outcomes[0], arguments=good.arguments)
    assert (bad.status, bad.diverged_at, len(bad.curve)) == (DIVERGED, 3, 2)


def test_infinite_arguments_survive(tmp_path):
    one = studies.outcome("a", arguments={"threshold": math.inf})
    assert from_json(to_json(one), type(one)).arguments == {"threshold": math.inf}
    json.loads(to_json(one), parse_constant=pytest.fail)


@pytest.mark.parametrize("study", ["small", "everything_small"])
def test_results_obey_their_schema(study, small):
    if study == "everything_small":
        bad = studies.outcome("c", status=FAILED, arguments={"x": math.inf})
        small = replace(small, outcomes=(*small.outcomes, bad, studies.outcome("c", 1, trial=3)))
    schema = results_file.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    plain = json.loads(to_json(small))
    jsonschema.validate(plain, schema)
    for wrong in ({"schema": "hub-compare-1"}, {"tasks": None}, {"outcomes": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(plain | wrong, schema)


def test_a_line_for_each_training(small, written):
    lines = list(csv.DictReader((written / "trainings.csv").read_text().splitlines()))
    assert [(line["contender"], line["seed"]) for line in lines] == [
        ("a", "0"),
        ("a", "1"),
        ("b", "0"),
        ("b", "1"),
    ]
    first, last = lines[0], lines[3]
    assert float(first["held_out_loss"]) == small.outcomes[0].loss
    assert json.loads(first["arguments"])["betas"] == [0.9, 0.999]
    assert float(first["host_ms"]) == 1.25
    assert (first["status"], first["diverged_at_step"]) == ("done", "")
    assert (last["status"], last["diverged_at_step"]) == ("diverged", "3")
    assert (last["held_out_loss"], last["steps_done"]) == ("", "2")
    assert float(last["last_training_loss"]) == small.outcomes[3].curve[1].loss


def test_targets_are_in_the_sheet():
    results = studies.results(studies.outcome("a", loss=2.0), tasks=(studies.task(target=2.9),))
    (line,) = csv.DictReader(sheet.csv(results).splitlines())
    reached = results.outcomes[0].reached(2.9)
    assert line["steps_to_target"] == str(reached.step)
    assert line["tokens_to_target"] == str(reached.step * 1024)
    assert float(line["seconds_to_target"]) == reached.seconds


def test_the_page_says_what_is_known(small, written):
    found = read(written)
    assert not found.tags & {"script", "link", "img"}
    for words in (
        "Only a was trained to the end: nothing compares with it.",
        "b diverged in 1 of 2 seeds.",
        "2.050 ± 0.635",
        "1 of 2 seeds",
        f"seed 1: diverged at step 3, loss {small.outcomes[3].curve[1].loss:.3f} until then",
        "1.25",
        "43 %",
        "14.5 MiB",
        "7.2 MiB",
        "114 MiB",
        "unlike its defaults lr=0.003",
        "x86_64 CPU, 2 threads",
        "python 3.11.2",
        "digest 0123456789abcdef",
        "contenders: - a - b",
    ):
        assert words in found.words, words
    assert "device (ms)" not in found.words  # nobody has it


def test_tuning_is_in_the_page():
    made = [
        studies.outcome("a", 9, loss, trial=trial, chosen={"lr": rate})
        for trial, (loss, rate) in enumerate([(2.5, 0.01), (2.25, 0.0031622776), (2.75, 0.001)])
    ]
    made += [
        studies.outcome("a", 9, trial=3, chosen={"lr": 1.0}, status=DIVERGED),
        studies.outcome("a", 0, 2.2, chosen={"lr": 0.0031622776}),
    ]
    results = studies.results(*made)
    words = Page(page.html(results, Pictures.of(results))).words
    assert "each tuned with 4 trials" in words
    assert "found by tuning lr=0.003162" in words
    assert "all 4 trials" in words
    assert "1 0.003162 2.250 (best)" in words
    assert "3 1 diverged at step 3" in words
    assert "diverged in" not in words  # trials are for that
    assert "One seed: no contender" not in words  # there is one contender only


def test_a_contender_without_one_good_trial_is_in_the_page():
    trials = [studies.outcome("b", 9, trial=n, status=DIVERGED) for n in range(4)]
    results = studies.results(studies.outcome("a"), *trials)
    words = Page(page.html(results, Pictures.of(results))).words
    assert "b 4 of 4 trials diverged –" in words


def test_findings_warnings_and_errors_are_in_the_page():
    one = studies.outcome(
        "a", status=FAILED, warnings=("careful <now>",), findings=("embeddings: AdamW",)
    )
    results = studies.results(one, replace(one, run=replace(one.run, seed=1)))
    words = Page(page.html(results, Pictures.of(results))).words
    assert words.count("careful <now>") == 1
    assert words.count("embeddings: AdamW") == 1
    assert words.count("RuntimeError: <b>no & way</b>") == 1
    assert "llama, seed 0, llama, seed 1" in words
    assert "Traceback: here" in words


def test_what_fails_after_training_leaves_the_results(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Pictures, "of", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(small, tmp_path)
    assert results_file.load(tmp_path / "results.json").contenders == ("a", "b")
    assert (tmp_path / "trainings.csv").exists()


def test_a_reader_never_sees_half_a_file(small, written, monkeypatch):
    before = {path: path.read_bytes() for path in written.rglob("*") if path.is_file()}

    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(HubError, match="No space left"):
        report.write(studies.study({"c": [1.0]}), written)
    assert {path: path.read_bytes() for path in written.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_a_file_is_refused(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HubError, match="cannot be written"):
        report.write(small, tmp_path / "file")


def test_nothing_trained_can_be_written(tmp_path):
    report.write(studies.study({"a": [NOT_STARTED], "b": [NOT_STARTED]}), tmp_path)
    assert "interrupted: not all trainings are done" in read(tmp_path).words
    assert list((tmp_path / "pictures").iterdir()) == []


def test_a_report_is_the_same_every_time(small, tmp_path):
    for name in "ab":
        report.write(small, tmp_path / name)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert (
                path.read_bytes()
                == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
            )


def test_the_published_schema_is_this_one():
    """After a change: write `results_file.schema()` there, with an indent of 2."""
    published = json.loads((Path(__file__).parents[2] / SCHEMA_FILE).read_text())
    assert published == results_file.schema()


# Pictures


def limits_of(results, number: int = 0) -> tuple[float, float]:
    task = results.tasks[0]
    drawn = curves.pictures(rows(results, task), task, _looks(results))[number]
    return drawn.drawn.axes[0].get_ylim()


def _looks(results):
    return looks.looks(results.contenders)


@pytest.mark.parametrize("status", [DIVERGED, Status.DONE])
@pytest.mark.parametrize("number", range(3))
def test_a_training_that_blew_up_does_not_stretch_the_curves(status, number):
    """Whether it ended as a number or not; 40,000 was seen."""
    good = [studies.outcome("a", seed, 2.0) for seed in range(2)]
    bad = studies.outcome("b", 0, 40_000.0, status=status, done=9)
    alone, together = studies.results(*good), studies.results(*good, bad)
    assert limits_of(together, number) == limits_of(alone, number)
    task = together.tasks[0]
    drawn = curves.pictures(rows(together, task), task, _looks(together))[number]
    assert "A triangle at the top marks" in drawn.caption
    marks = [line for line in drawn.drawn.axes[0].lines if line.get_marker() == "^"]
    assert [line.get_ydata()[0] for line in marks] == [limits_of(alone, number)[1]]


def test_a_training_that_stops_being_a_number_is_marked_at_its_step():
    results = studies.study({"a": [2.0], "b": [DIVERGED]})
    task = results.tasks[0]
    drawn = curves.pictures(rows(results, task), task, _looks(results))[0]
    (mark,) = (line for line in drawn.drawn.axes[0].lines if line.get_marker() == "^")
    assert mark.get_xdata()[0] == 3


@pytest.mark.parametrize("others", [[], ["a"]])
def test_a_training_may_diverge_at_its_first_step(others):
    bad = studies.outcome("b", status=DIVERGED, done=1)
    assert bad.curve == ()
    results = studies.results(*map(studies.outcome, others), bad)
    task = results.tasks[0]
    drawn = curves.pictures(rows(results, task), task, _looks(results))
    assert len(drawn) == (3 if others else 0)
    if others:
        (mark,) = (line for line in drawn[0].drawn.axes[0].lines if line.get_marker() == "^")
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (1, limits_of(results)[1])
    assert "diverged at step 1" in Page(page.html(results, Pictures.of(results))).words


def test_bands_reach_from_the_lowest_seed_to_the_highest():
    results = studies.study({"a": [2.0, 2.2, 2.6]})
    found = rows(results, results.tasks[0])
    (line,) = curves.lines(found, curves.held_out_losses)
    assert line.steps == (0, 10, 20, 30, 40)
    assert (line.low[-1], line.middle[-1], line.high[-1]) == (
        2.0,
        pytest.approx(2.2667, abs=1e-4),
        2.6,
    )
    seconds = [one.evaluations[-1].seconds for one in results.outcomes]
    assert line.seconds[-1] == pytest.approx(sum(seconds) / 3)


def test_smoothing_looks_back_only():
    losses = [float(n) for n in range(20)]
    assert curves.smoothed(losses, [0, 1, 2, 19], 20) == [0.0, 0.5, 1.5, 18.5]
    assert curves.smoothed(losses[:3], [0, 1, 2], 3) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("count", [1, 2, 150, 151, 100_000])
def test_long_curves_are_thinned_out(count):
    places = curves.thinned(count)
    assert (places[0], places[-1]) == (0, count - 1)
    assert len(places) == len(set(places)) == min(count, curves.POINTS)


def test_one_line_a_contender_over_learning_rates():
    made = [
        studies.outcome("a", 9, 2 + rate, trial=trial, chosen={"lr": rate, "weight_decay": 0.1})
        for trial, rate in enumerate([0.1, 0.001, 0.01])
    ]
    made += [studies.outcome("a", 9, trial=3, chosen={"lr": 1.0}, status=DIVERGED)]
    made += [studies.outcome("b", 9, trial=n, chosen={"weight_decay": n / 9}) for n in range(3)]
    results = studies.results(*made)
    drawn = drawings.sensitivity(results, results.tasks[0], _looks(results))
    axes = drawn.drawn.axes[0]
    assert axes.get_xscale() == "log"
    assert list(axes.lines[0].get_xdata()) == [0.001, 0.01, 0.1]
    (mark,) = (line for line in axes.lines if line.get_marker() == "^")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (1.0, axes.get_ylim()[1])
    assert "Also varied: weight_decay." in drawn.caption
    assert list(drawn.looks) == ["a"]  # that of b is fixed


def test_the_front_has_what_none_beats():
    points = [(1, 5), (2, 3), (3, 4), (2, 3), (4, 1), (5, 1)]
    assert drawings.pareto(points) == [(1, 5), (2, 3), (4, 1)]


def test_the_profile_of_a_textbook_example():
    """Three tasks: a is the fastest on two, and b on one, which a does not solve."""
    steps = {"x": {"a": 10.0, "b": 20.0}, "y": {"a": 5.0, "b": 5.0}, "z": {"b": 7.0}}
    assert drawings.profiles(steps, ["a", "b"]) == {"a": [1.0, 1.0], "b": [1.0, 1.0, 2.0]}


def test_tasks_with_targets_have_a_profile():
    tasks = tuple(studies.task(name, target=2.5) for name in ("x", "pkg.mod:make", "never"))
    made = [
        studies.outcome(name, 0, 3.0 if task.name == "never" else level, task=task.name, every=2)
        for task in tasks
        for name, level in (("a", 2.0), ("b", 2.3))
    ]
    results = studies.results(*made, tasks=tasks)
    drawn = Pictures.of(results)
    (profile,) = drawn.together
    assert "Over 3 tasks" in profile.caption
    heights = [max(line.get_ydata()) for line in profile.drawn.axes[0].lines]
    assert heights == [pytest.approx(2 / 3)] * 2
    assert "pkg-mod-make-held-out-loss" in {one.name for one in drawn.all}


def test_limits_hold_for_whatever_there_is():
    assert picture.limits([2.0, 40_000.0], [5.0], whole=True) == (1.85, 5.15)
    assert picture.limits([2.0, 7.0, 9.0], [5.0], whole=True) == (1.75, 7.25)  # noise, and more
    assert picture.limits([2.0, 3.0, 40_000.0], [5.0], whole=False) == (1.95, 3.05)
    for values, start in (([6.0], [5.0]), ([0.0], []), ([-1.0], [])):
        low, high = picture.limits(values, start, whole=True)
        assert low < values[0] < high


def test_contenders_look_the_same_everywhere_and_none_like_another():
    found = [
        (look.color, look.dashes)
        for look in _looks(studies.study({f"c{n}": [2.0] for n in range(28)})).values()
    ]
    assert len(set(found)) == 28
    swatch = _looks(studies.study({"a": [2.0]}))["a"].swatch
    assert "var(--c0)" in swatch


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_lines_stand_out_from_the_page(scheme):
    """At least 3 to 1, as WCAG 2.2 asks of what is no text; 4.5 of text."""

    def luminance(color: str) -> float:
        channels = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
        linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return sum(map(math.prod, zip((0.2126, 0.7152, 0.0722), linear, strict=True)))

    paper = luminance(looks.PAGE["paper"][scheme])

    def contrast(color: str) -> float:
        dim, bright = sorted((luminance(color), paper))
        return (bright + 0.05) / (dim + 0.05)

    assert {pair for pair in looks.COLORS if contrast(pair[scheme]) < 3} == set()
    assert contrast(looks.PAGE["muted"][scheme]) > 4.5


def test_svgs_have_names_of_their_own():
    """A page with two pictures must not take a clip path of one for the other's."""
    results = studies.study({"a": [2.0, 2.1], "b": [2.2, 2.3]})
    texts = [one.svg() for one in Pictures.of(results).all]
    ids = [set(re.findall(r'<clipPath id="([^"]+)"', text)) for text in texts]
    assert all(ids)
    assert len(set.union(*ids)) == sum(map(len, ids))
    assert not any("http" in text or "#0072b2" in text for text in texts)
    assert all("var(--c0)" in text for text in texts)


def test_the_legend_of_a_file_is_not_in_the_page():
    results = studies.study({"label of a": [2.0, 2.1], "label of b": [2.2, 2.3]})
    drawn = Pictures.of(results).by_task["llama"][1]
    before = drawn.svg()
    drawn.png()
    after = drawn.svg()
    assert "label of" not in before + after
    frame = re.compile(r'viewBox="[^"]*"')
    assert frame.findall(before) == frame.findall(after)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1023, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102_400, "100 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (10**12, "931 GiB"),
    ],
)
def test_sizes_are_written_in_binary_units(value, text):
    assert formatting.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (5.5, "5.500"),
        (0, "0.000"),
        (0.0123456, "0.0123"),
        (-3.2, "-3.200"),
        (2e9, "2e+09"),
    ],
)
def test_losses_are_written_as_far_as_there_are_any(value, text):
    assert formatting.loss(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.5, "0.500 s"), (99.5, "99.5 s"), (119, "119 s"), (600, "10.0 min")],
)
def test_durations(value, text):
    assert formatting.duration(value) == text


def test_units_of_users_are_text():
    tasks = (studies.task(unit="<b>$x_1$</b>\x1b"),)
    results = studies.study({"a": [2.0, 2.1], "b": [2.5, 2.61]}, tasks=tasks)
    found = Page(page.html(results, Pictures.of(results)))
    assert "2.555 <b>$x_1$</b>\\x1b, p" in found.words
    assert "training loss (<b>$x_1$</b>\\x1b)" in found.words


@pytest.mark.parametrize(("target", "shown"), [(2.5, True), (1.5, True), (40.0, False)])
def test_a_target_is_drawn_where_it_is_in_the_picture(target, shown):
    results = studies.results(studies.outcome("a"), tasks=(studies.task(target=target),))
    task = results.tasks[0]
    drawn = curves.pictures(rows(results, task), task, _looks(results))[2]
    levels = [line.get_ydata()[0] for line in drawn.drawn.axes[0].lines]
    assert (target in levels) == ("dashed gray" in drawn.caption) == shown
