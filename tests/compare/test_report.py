import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

import hub
from hub.compare import Contender, Row, Status, figure, formatting, report, table
from hub.errors import HubError

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects texts and images, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.texts, self.images, self.tags = [], [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        assert not any(value and value.startswith(("http", "//")) for _, value in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def written(comparison):
    return comparison[0].settings.out


def test_infinite_arguments_are_reported(comparison, tmp_path):
    whole = comparison[0]
    row = replace(whole.rows[0], arguments={"threshold": float("inf")})
    report.write(replace(whole, rows=(row,)), tmp_path)
    data = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert data["optimizers"][0]["arguments"] == {"threshold": {"float": "inf"}}


def test_what_fails_after_training_leaves_the_results(comparison, tmp_path, monkeypatch):
    monkeypatch.setattr(figure, "png", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(comparison[0], tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["optimizers"]


def test_exactly_three_files_are_written(written):
    assert sorted(path.name for path in written.iterdir()) == [
        "loss.png",
        "report.html",
        "results.json",
    ]


def test_results_hold_everything(comparison, written):
    result, _ = comparison
    data = json.loads((written / "results.json").read_text(), parse_constant=pytest.fail)
    assert data == json.loads(json.dumps(report.to_dict(result)))
    assert data["settings"]["steps"] == 4
    assert data["settings"]["lr_scheduler"] == "constant_with_warmup"
    assert {"python", "hub", "torch", "transformers", "hub-crashing"} <= set(data["versions"])
    assert len(data["data"]["sha256"]) == 64
    adamw, failed = data["optimizers"][0], data["optimizers"][2]
    assert (adamw["name"], adamw["optim_args"]) == ("adamw_torch", "lr=0.01")
    assert adamw["arguments"]["lr"] == 0.01
    assert [point["step"] for point in adamw["curve"]] == [1, 2, 3, 4]
    assert adamw["eval_loss_after"] == result.rows[0].eval_loss_after
    assert adamw["state_bytes"] == result.rows[0].state_bytes
    assert (failed["status"], failed["eval_loss_after"]) == ("failed", None)


def test_page_is_complete_in_itself(comparison, written):
    page = Page((written / "report.html").read_text())
    (image,) = page.images
    head, _, body = image.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == (written / "loss.png").read_bytes()
    assert not page.tags & {"script", "link", "b"}
    words = "".join(page.texts)
    for row in comparison[0].rows:
        assert row.contender.label in words
    assert "RuntimeError: <b>no & way</b>" in words
    assert "constant_with_warmup, 1 warm-up steps" in words
    assert "prefers" not in words
    assert "light dark" in words


NAMES = ["schedule_free_radam", "galore_adamw_8bit_layerwise", "paged_ademamix_32bit_layerwise"]


@pytest.mark.parametrize("status", Status)
def test_names_are_on_one_line_in_80_columns(comparison, status):
    """With the widest figures that there can be."""
    longest = max(hub.list_optimizers(), key=len) + "_layerwise"
    row = replace(
        comparison[0].rows[0],
        status=status,
        eval_loss_after=1.23e30,
        tokens_per_second=999_999.0,
        state_bytes=998 * 2**20,
        gradient_bytes=int(99.9 * 2**20),
        peak_memory_bytes=int(99.9 * 2**30),
    )
    names = [*NAMES, longest]
    rows = tuple(replace(row, contender=Contender(name)) for name in names)
    console = Console(file=io.StringIO(), width=80)
    table.show(replace(comparison[0], rows=rows), console)
    lines = console.file.getvalue().splitlines()
    shown = [line.split()[0] for line in lines[3 : 3 + len(names)]]
    assert shown == names
    assert len(lines) == 3 + len(names)
    assert "…" not in "".join(lines)
    assert all("998 MiB 99.9 MiB 99.9 GiB" in " ".join(line.split()) for line in lines[3:])


def test_the_loss_before_training_is_told_once(comparison):
    whole, printed = comparison
    before = f"{whole.rows[0].eval_loss_before:.3f}"
    assert f"loss on held-out text, {before} before training" in printed
    assert f"{whole.rows[0].eval_loss_after:.3f}" in printed
    assert replace(whole, rows=()).loss_before is None


def test_picture_is_a_png(written):
    assert (written / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_any_label_can_be_drawn_and_written(comparison, tmp_path):
    label = "<i>&$\\frac$ [red]\"'"
    rows = tuple(replace(row, contender=Contender(label)) for row in comparison[0].rows)
    report.write(replace(comparison[0], rows=rows), tmp_path)
    assert label in "".join(Page((tmp_path / "report.html").read_text()).texts)


def test_nothing_trained_can_be_written(comparison, tmp_path):
    row = Row(contender=Contender("sgd"), status=Status.NOT_STARTED)
    report.write(replace(comparison[0], rows=(row,)), tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["interrupted"]


def test_a_reader_never_sees_half_a_file(comparison, tmp_path, monkeypatch):
    report.write(comparison[0], tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(HubError, match="No space left"):
        report.write(comparison[0], tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_smoothing_looks_back_only():
    assert figure.smoothed([1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert figure.smoothed([float(n) for n in range(20)])[:3] == [0.0, 0.5, 1.5]
    assert figure.smoothed([]) == []


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


def test_losses_are_written_as_far_as_there_are_any():
    assert formatting.loss(None) == "–"
    assert formatting.loss(5.5) == "5.500"
    assert formatting.loss(2e9) == "2e+09"
