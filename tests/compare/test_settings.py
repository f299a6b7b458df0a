import pytest

from hub.compare import Contender, Settings
from hub.errors import HubError, PrecisionError

ADAMW = (Contender("adamw_torch"),)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"contenders": ()}, "contenders"),
        ({"contenders": ADAMW * 2}, "adamw_torch"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"sequence_length": 1}, "sequence_length"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"warmup_steps": 1}, "warmup_steps"),
        ({"warmup_steps": 5, "lr_scheduler": "linear", "steps": 4}, "warmup_steps"),
        ({"seed": -1}, "seed"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm"),
        ({"device": "tpu"}, "device"),
        ({"tasks": ()}, "tasks"),
        ({"seeds": 0}, "seeds"),
        ({"tune": -1}, "tune"),
        ({"jobs": 0}, "jobs"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"contenders": (Contender("sgd", warmup_steps=1),)}, "warmup_steps"),
        ({"contenders": (Contender("sgd", max_grad_norm=-1.0),)}, "max_grad_norm"),
    ],
)
def test_senseless_values_are_refused(changes, where):
    with pytest.raises(HubError) as caught:
        Settings(**({"contenders": ADAMW} | changes))
    assert caught.value.where == where
    assert caught.value.fix


@pytest.mark.parametrize(("precision", "device"), [("fp8", "cpu"), ("fp16-mixed", "cpu")])
def test_precision_must_fit_the_device(precision, device):
    with pytest.raises(PrecisionError):
        Settings(contenders=ADAMW, precision=precision, device=device)


def test_a_contender_has_its_own_schedule_or_that_of_the_study():
    own = Contender("sgd", lr_scheduler="cosine", warmup_steps=0)
    settings = Settings(contenders=(*ADAMW, own), lr_scheduler="linear", warmup_steps=2, steps=9)
    chosen = [
        (settings.of(one, "lr_scheduler"), settings.of(one, "warmup_steps"))
        for one in settings.contenders
    ]
    assert chosen == [("linear", 2), ("cosine", 0)]


def test_evaluations_are_spread_over_a_training_with_a_target():
    def after(**changes) -> list[int]:
        return list(Settings(contenders=ADAMW, **changes).evaluated_after(100))

    assert after() == []
    assert after(target=2.0) == list(range(5, 100, 5))
    assert after(evaluate_every=40) == [40, 80]
    assert list(Settings(contenders=ADAMW, target=1.0).evaluated_after(3)) == [1, 2]


def test_a_target_of_the_task_counts_if_the_study_has_none():
    assert list(Settings(contenders=ADAMW).evaluated_after(3, 1.0)) == [1, 2]
    assert list(Settings(contenders=ADAMW, evaluate_every=2).evaluated_after(3, 1.0)) == [2]
