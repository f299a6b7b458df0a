"""What is timed, and in which order. How long it takes is no test's business."""

import torch

from hub.experiments import clock

CPU = torch.device("cpu")


def test_bandwidth_is_that_of_an_update_in_place(monkeypatch):
    mib = 2**20
    assert 1e8 < clock.bandwidth(CPU, 8 * mib) < 1e13
    monkeypatch.setattr(clock, "once", lambda *_: clock.Time(2.0, 2.0, 1.0))
    assert clock.bandwidth(CPU, 8 * mib) == 3 * 8 * mib / 0.001  # of device time, where it is known


def test_things_take_turns():
    order = []
    things = [clock.Timed(lambda _, n=n: order.append(n)) for n in "ab"]
    for turn in range(2):
        clock.in_turn(things, CPU, turn)
    assert order == ["b", "a", "a", "b"]


def test_blocks_are_timed_where_they_run():
    steps = clock.StepClock(CPU)
    for _ in range(2):
        with steps:
            pass
        steps.read()
    assert len(steps.host_ms) == 2
    assert min(steps.host_ms) >= 0
    assert steps.device_ms == []
