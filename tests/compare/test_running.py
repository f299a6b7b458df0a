import io
import os
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from hub.compare import Status, process, run
from hub.errors import HubError, UnknownOptimizerError

SILENT = Console(file=io.StringIO())


def test_rows_come_in_the_order_asked_for(comparison):
    result, _ = comparison
    assert [row.contender for row in result.rows] == list(result.settings.contenders)
    assert [row.status for row in result.rows] == [Status.DONE] * 2 + [Status.FAILED] * 3
    assert not result.interrupted


def test_a_finished_row_has_every_figure(comparison):
    result, _ = comparison
    adamw, sgd = result.rows[:2]
    for row in (adamw, sgd):
        assert [point.step for point in row.curve] == [1, 2, 3, 4]
        assert row.eval_loss_after < row.eval_loss_before
        assert row.tokens_per_second > 0
        assert row.gradient_bytes == 4 * row.parameters
        assert row.peak_memory_bytes > 4 * row.parameters
        assert row.device
        assert not row.error
    assert adamw.arguments["lr"] == 0.01
    assert adamw.state_bytes > 2 * 4 * adamw.parameters > sgd.state_bytes


def test_every_training_starts_the_same(comparison):
    result, _ = comparison
    started = [row for row in result.rows if row.eval_loss_before is not None]
    assert len(started) == 5
    assert len({row.eval_loss_before for row in started}) == 1
    assert len({row.curve[0].loss for row in result.rows[:2]}) == 1


def test_a_crash_is_a_row(comparison):
    raised, killed, left = comparison[0].rows[2:]
    assert raised.error == "RuntimeError: <b>no & way</b>"
    assert "Traceback" in raised.details
    assert "SIGKILL" in killed.error
    assert killed.details.endswith("last words")
    assert "exit code 0" in left.error
    assert killed.eval_loss_before is not None
    assert killed.eval_loss_after is killed.state_bytes is killed.peak_memory_bytes is None


def test_lines_and_table_are_printed(comparison):
    result, printed = comparison
    assert "adamw_torch:lr=0.01: step 4/4, loss " in printed
    assert "crashing:how=raise: failed" in printed
    assert "crashing:how=raise: RuntimeError: <b>no & way</b>" in printed
    assert "last words" not in printed
    assert "\x1b" not in printed
    assert all(row.contender.label in printed for row in result.rows)


class Interrupting(io.StringIO):
    """Presses Ctrl-C when some text is printed."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def write(self, text: str) -> int:
        if self.when in text:
            self.when = "\0"
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


@pytest.fixture
def _listening():
    """Let SIGINT interrupt, which a shell that runs the tests in the background has ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_listening")
def test_interruption_keeps_what_is_done(settings, tmp_path):
    console = Console(file=Interrupting("step 400/"), width=100)
    chosen = settings("adamw_torch", "sgd", steps=2000, out=tmp_path)
    result = run(chosen, console)
    stopped, waiting = result.rows
    assert result.interrupted
    assert stopped.status is Status.INTERRUPTED
    assert 400 <= len(stopped.curve) < 2000
    assert stopped.error == f"interrupted at step {len(stopped.curve)} of 2000"
    assert stopped.tokens_per_second is not None
    assert waiting.status is Status.NOT_STARTED
    assert "interrupted" in (tmp_path / "report.html").read_text()
    assert "not started" in console.file.getvalue()


@pytest.mark.parametrize(
    ("contender", "changes", "error"),
    [
        ("adamw_trch", {}, UnknownOptimizerError),
        ("sgd", {"lr_scheduler": "lineer"}, UnknownOptimizerError),
        ("sgd", {"device": "cuda:99"}, HubError),
    ],
)
def test_what_cannot_work_is_refused_before_anything_trains(
    settings, monkeypatch, contender, changes, error
):
    monkeypatch.setattr(process, "train", pytest.fail)
    with pytest.raises(error):
        run(settings("adamw_torch", contender, **changes), SILENT)


def test_a_folder_that_cannot_be_written_is_refused_first(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(process, "train", pytest.fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match="cannot be written"):
        run(settings(out=tmp_path / "file" / "report"), SILENT)


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "hung up"), (3, "exit code 3"), (-11, "SIGSEGV"), (-9, "memory"), (-99, "signal 99")],
)
def test_the_end_of_a_process_is_told_in_words(code, words):
    assert words in process.exit_reason(code)


def test_checking_imports_nothing_heavy():
    script = (
        "import sys; from hub.compare import Contender, Settings, running;"
        "running.check(Settings(contenders=(Contender('adamw_torch'),)));"
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
