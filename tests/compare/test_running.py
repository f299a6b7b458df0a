import io
import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from hub.compare import Status, results_file, run, study_file
from hub.compare.execution import executing
from hub.errors import HubError, UnknownOptimizerError
from hub.experiments import processes

SILENT = Console(file=io.StringIO())


def test_outcomes_come_in_the_order_asked_for(study):
    results, _, _ = study
    asked = [(outcome.run.contender, outcome.run.seed) for outcome in results.outcomes]
    assert asked == [(label, seed) for label in results.contenders for seed in (0, 1)]
    assert [outcome.status for outcome in results.outcomes] == [
        *[Status.DONE] * 4,
        *[Status.DIVERGED] * 2,
        *[Status.FAILED] * 6,
    ]
    assert not results.interrupted


def test_a_finished_training_has_every_figure(study):
    results, _, _ = study
    adamw, _, sgd, _ = results.outcomes[:4]
    for one in (adamw, sgd):
        assert [point.step for point in one.curve] == [1, 2, 3, 4]
        assert one.loss == one.evaluations[-1].loss < one.evaluations[0].loss
        assert one.step_seconds > 0
        assert one.gradient_bytes == 4 * one.parameters
        assert one.peak_memory_bytes > 4 * one.parameters
        assert one.bandwidth_fraction > 0
        assert one.device
        assert not one.error
    assert adamw.arguments["lr"] == 0.01
    assert adamw.state_bytes > 2 * 4 * adamw.parameters > sgd.state_bytes


def test_every_training_of_a_seed_starts_the_same(study):
    results, _, _ = study
    for seed in (0, 1):
        started = [one for one in results.outcomes if one.run.seed == seed]
        assert len({one.evaluations[0].loss for one in started}) == 1
        assert len({one.curve[0].loss for one in started if one.curve}) == 1


def test_a_crash_is_an_outcome(study):
    raised, killed, left = study[0].outcomes[6::2]
    assert raised.error == "RuntimeError: <b>no & way</b>"
    assert "Traceback" in raised.details
    assert "SIGKILL" in killed.error
    assert killed.details.endswith("last words")
    assert "exit code 0" in left.error
    assert len(killed.evaluations) == 1
    assert killed.loss is killed.state_bytes is killed.peak_memory_bytes is None


def test_lines_and_table_are_printed(study):
    results, printed, _ = study
    assert "adamw_torch:lr=0.01, llama, seed 0: step 4/4, loss " in printed
    assert "crashing:how=raise, llama, seed 1: failed" in printed
    assert "RuntimeError: <b>no & way</b>" in printed
    assert "last words" not in printed
    assert "\x1b" not in printed
    assert all(label in printed for label in results.contenders)


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
    console = Console(file=Interrupting("step 40/"), width=100)
    chosen = settings("adamw_torch", "sgd", steps=200, out=tmp_path)
    results = run(chosen, console)
    stopped, waiting = results.outcomes
    assert results.interrupted
    assert stopped.status is Status.INTERRUPTED
    assert 40 <= len(stopped.curve) < 200
    assert stopped.error == f"interrupted at step {len(stopped.curve)} of 200"
    assert stopped.step_seconds is not None
    assert waiting.status is Status.NOT_STARTED
    assert "interrupted" in (tmp_path / "report.html").read_text()
    assert "not started" in console.file.getvalue()


def losses(results) -> list:
    return [
        (
            one.run,
            one.status,
            [point.loss for point in one.curve],
            [e.loss for e in one.evaluations],
        )
        for one in results.outcomes
    ]


def test_a_study_goes_on_from_what_is_done(settings, tmp_path, monkeypatch):
    first = settings("adamw_torch:lr=0.01", "sgd:lr=1e30", seeds=2, out=tmp_path)
    run(first, SILENT)
    started = []
    real = executing.Process

    def counted(chosen, jobs):
        started.extend(one.contender for _, one in jobs)
        return real(chosen, jobs)

    monkeypatch.setattr(executing, "Process", counted)
    more = replace(first, seeds=3, contenders=(*first.contenders, *settings("sgd").contenders))
    grown = run(more, SILENT)
    assert sorted(started) == ["adamw_torch:lr=0.01", "sgd", "sgd", "sgd", "sgd:lr=1e30"]
    monkeypatch.setattr(executing, "Process", pytest.fail)
    again = run(more, SILENT)
    assert again == grown
    fresh = (tmp_path / "report.html").read_text()
    assert "adamw_torch:lr=0.01" in fresh


def test_settings_that_losses_depend_on_train_again(settings, tmp_path):
    ((first,), (second,)) = (
        run(settings("sgd", out=tmp_path, max_grad_norm=norm), SILENT).outcomes
        for norm in (None, 1e-3)
    )
    assert first.loss != second.loss


def test_several_jobs_train_the_same_on_as_many_threads(settings):
    names = ("adamw_torch:lr=0.01", "sgd:lr=0.1", "adafactor:lr=0.01")
    one_by_one, together = (run(settings(*names, jobs=jobs), SILENT) for jobs in (1, 3))
    assert [one.run for one in one_by_one.outcomes] == [one.run for one in together.outcomes]
    for a, b in zip(one_by_one.outcomes, together.outcomes, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-4)
    assert together.machines[0].endswith("1 thread")


STUDY = """
contenders: [adamw_torch, sgd, "schedule_free_adamw:lr=0.01"]
tasks: [problems/logistic, problems/saddle]
tune: 4
seeds: 3
steps: 150
"""
KILLED = """
import sys
from pathlib import Path

from rich.console import Console

from hub.compare import run, study_file

if __name__ == "__main__":
    run(study_file.read(Path("study.yaml"), out=Path("killed")), Console())
"""
KILLS = 3


def test_a_study_killed_again_and_again_equals_one_that_was_not(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "script.py").write_text(KILLED)
    for kills in range(KILLS + 1):
        command = [sys.executable, "script.py"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        ends = (number for number, line in enumerate(process.stdout, 1) if "done" in line)
        if kills < KILLS and sum(1 for _ in itertools.islice(ends, 3)) == 3:
            process.kill()  # in the middle of the next training
        process.communicate()
    whole = run(study_file.read(tmp_path / "study.yaml"), SILENT)
    resumed = results_file.load(tmp_path / "killed")
    assert process.returncode == 0
    assert losses(resumed) == losses(whole)
    assert len(whole.outcomes) == 2 * 3 * (4 + 3)


@pytest.mark.parametrize(
    ("contender", "changes", "error"),
    [
        ("adamw_trch", {}, UnknownOptimizerError),
        ("sgd", {"lr_scheduler": "lineer"}, UnknownOptimizerError),
        ("sgd:lr_scheduler=lineer", {}, UnknownOptimizerError),
        ("sgd", {"device": "cuda:99"}, HubError),
        ("sgd", {"tasks": ("lama",)}, HubError),
        ("sgd:lr=1,weight_decay=0", {"tune": 4}, HubError),
    ],
)
def test_what_cannot_work_is_refused_before_anything_trains(
    settings, monkeypatch, contender, changes, error
):
    monkeypatch.setattr(executing, "Process", pytest.fail)
    with pytest.raises(error):
        run(settings("adamw_torch", contender, **changes), SILENT)


def test_a_folder_that_cannot_be_written_is_refused_first(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(executing, "Process", pytest.fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match="cannot be written"):
        run(settings(out=tmp_path / "file" / "report"), SILENT)


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "hung up"), (3, "exit code 3"), (-11, "SIGSEGV"), (-9, "memory"), (-99, "signal 99")],
)
def test_the_end_of_a_process_is_told_in_words(code, words):
    assert words in processes.exit_reason(code)


def test_checking_imports_nothing_heavy():
    script = (
        "import sys; from hub.compare import Contender, Settings, running;"
        "running.check(Settings(contenders=(Contender('adamw_torch'),)));"
        "heavy = {'torch', 'transformers', 'matplotlib', 'scipy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
