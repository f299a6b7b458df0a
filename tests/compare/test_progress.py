import io

from rich.console import Console

from hub.compare import progress
from hub.compare.events import Failed, Finished, Stepped, Warned
from hub.compare.recorder import Recorder


def show(settings, *told, terminal: bool) -> str:
    recorder = Recorder(settings, settings.contenders[0])
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with progress.shown([recorder], console) as update:
        for event in told:
            recorder.apply(event)
            update(recorder)
    return console.file.getvalue()


def test_lines_are_few_and_plain(settings):
    steps = [Stepped(step, 2.5, 0.1) for step in range(1, 1001)]
    text = show(settings(steps=1000), *steps, Warned("not a step"), Finished(), terminal=False)
    assert [line.split(",")[0] for line in text.splitlines()] == [
        f"adamw_torch: step {step}/1000" for step in (1, 200, 400, 600, 800, 1000)
    ]
    assert "loss 2.500, 640 tokens/s" in text


def test_bars_show_step_loss_and_speed(settings):
    text = show(settings("sgd:x=[1,2]"), Stepped(3, 2.5, 0.1), terminal=True)
    assert "sgd:x=[1,2]" in text
    assert "1/4" in text
    assert "loss 2.500, 640 tokens/s" in text


def test_long_labels_leave_room_for_the_bar(settings):
    text = show(settings("sgd:" + "x" * 200), Stepped(1, 2.5, 0.1), terminal=True)
    assert "…" in text
    assert "loss 2.500, 640 tokens/s" in text


def test_failures_show(settings):
    failed = Failed("boom", "")
    assert "failed" in show(settings(), failed, terminal=True)
    assert show(settings(), failed, terminal=False) == "adamw_torch: failed\n"
