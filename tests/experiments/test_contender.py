import pytest

from hub.compare import Contender
from hub.errors import HubError
from hub.experiments.contender import check_labels


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
    contender = Contender.parse(text)
    assert (contender.name, contender.optim_args) == (name, optim_args)


def test_label_is_what_was_asked_for():
    assert Contender.parse("sgd").label == "sgd"
    assert Contender.parse("sgd:lr=0.1").label == "sgd:lr=0.1"


@pytest.mark.parametrize("text", ["", " ", ":lr=1"])
def test_contender_needs_a_name(text):
    with pytest.raises(HubError, match="name of an optimizer is missing"):
        Contender.parse(text)


def test_a_line_has_settings_of_its_own_beside_arguments():
    contender = Contender.parse(
        "adamw_torch:lr=1e-3,lr_scheduler=cosine,warmup_steps=5,max_grad_norm=1.0,"
        "betas=(0.9, 0.95),param_rules={'head': {'lr': 0.1, 'optimizer': 'sgd'}},label=mixed"
    )
    assert contender == Contender(
        "adamw_torch",
        "lr=1e-3,betas=(0.9, 0.95)",
        label="mixed",
        lr_scheduler="cosine",
        warmup_steps=5,
        max_grad_norm=1.0,
        param_rules={"head": {"lr": 0.1, "optimizer": "sgd"}},
    )
    assert contender.own_arguments == {"lr", "betas"}


def test_a_mapping_may_have_arguments_as_a_mapping():
    contender = Contender.of({"name": "sgd", "optim_args": {"lr": 0.1, "momentum": 0.9}})
    assert contender.label == "sgd:lr=0.1,momentum=0.9"
    assert contender.own_arguments == {"lr", "momentum"}


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"name": "sgd", "schedule": "linear"}, "contender sgd: schedule"),
        ({"name": "sgd", "warmup_steps": "many"}, "contender sgd: warmup_steps"),
        ({"label": "x"}, "contender : name"),
    ],
)
def test_a_mapping_with_other_keys_or_types_is_refused(values, where):
    with pytest.raises(HubError) as caught:
        Contender.of(values)
    assert caught.value.where == where
    assert "lr_scheduler" in caught.value.fix


def test_two_with_one_label_are_refused():
    with pytest.raises(HubError, match="named twice"):
        check_labels([Contender("sgd"), Contender("adamw_torch", label="sgd")])
