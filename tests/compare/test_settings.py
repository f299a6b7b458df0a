import pytest

from hub.compare import Contender, Settings
from hub.errors import HubError, PrecisionError

ADAMW = (Contender("adamw_torch"),)


@pytest.mark.parametrize(
    ("text", "name", "optim_args"),
    [
        ("sgd", "sgd", ""),
        ("sgd:", "sgd", ""),
        (" sgd : lr=0.1 ", "sgd", "lr=0.1"),
        ("torch.optim:NAdam", "torch.optim:NAdam", ""),
        ("torch.optim:NAdam:lr=1e-3", "torch.optim:NAdam", "lr=1e-3"),
        ("muon:rest.lr=3e-3", "muon", "rest.lr=3e-3"),
        ("x:key='a:b',betas=(0.9, 0.95)", "x", "key='a:b',betas=(0.9, 0.95)"),
    ],
)
def test_contender_is_a_name_or_import_path_and_arguments(text, name, optim_args):
    assert Contender.parse(text) == Contender(name, optim_args)


def test_label_is_what_was_asked_for():
    assert Contender.parse("sgd").label == "sgd"
    assert Contender.parse("sgd:lr=0.1").label == "sgd:lr=0.1"


@pytest.mark.parametrize("text", ["", " ", ":lr=1"])
def test_contender_needs_a_name(text):
    with pytest.raises(HubError, match="name of an optimizer is missing"):
        Contender.parse(text)


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
