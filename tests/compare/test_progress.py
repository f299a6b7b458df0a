import io

from rich.console import Console

from hub.compare import Outcome, Purpose, Run, Status, progress
from hub.compare.execution.events import Ended, Stepped, Warned
from hub.compare.execution.recorder import Recorder


def run_of(label="adamw_torch", **changes) -> Run:
    return Run(**{"contender": label, "task": "llama", "seed": 7, "steps": 4} | changes)


def show(run, *told, terminal: bool, found=()) -> str:
    recorder = Recorder(run)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with progress.shown(3, 3 * run.steps, console) as shown:
        for outcome in found:
            shown.found(outcome)
        for event in told:
            recorder.apply(event)
            shown.event(recorder)
    return console.file.getvalue()


def test_lines_are_few_and_plain():
    steps = [Stepped(step, 2.5, 0.1) for step in range(1, 1001)]
    end = Ended(Status.DONE)
    text = show(run_of(steps=1000), *steps, Warned("not a step"), end, terminal=False)
    assert text.splitlines() == [
        *(
            f"adamw_torch, llama, seed 7: step {step}/1000, loss 2.5"
            for step in (1, 200, 400, 600, 800, 1000)
        ),
        "[1/3] adamw_torch, llama, seed 7: done, loss 2.5",
    ]


def test_a_trial_is_one_line():
    trial = run_of(purpose=Purpose.TUNING, trial=2)
    text = show(trial, Stepped(1, 2.5, 0.1), Ended(Status.DIVERGED), terminal=False)
    assert text == "[1/3] adamw_torch, llama, trial 2: diverged, loss 2.5\n"


def test_bars_show_steps_loss_and_how_many_trainings_are_done():
    text = show(run_of("sgd:x=[1,2]"), Stepped(1, 2.5, 0.1), terminal=True)
    assert "sgd:x=[1,2]" in text
    assert "1/4" in text
    assert "1/12" in text
    assert "loss 2.5" in text
    assert "0 of 3 trainings" in text


def test_what_an_earlier_run_has_done_counts():
    done = Outcome(run=run_of(), status=Status.DONE)
    text = show(run_of(), Stepped(1, 2.5, 0.1), terminal=True, found=[done, done])
    assert "2 of 3 trainings" in text
    assert "9/12" in text


def test_long_labels_leave_room_for_the_bar():
    text = show(run_of("sgd:" + "x" * 200), Stepped(1, 2.5, 0.1), terminal=True)
    assert "…" in text
    assert "loss 2.5" in text
