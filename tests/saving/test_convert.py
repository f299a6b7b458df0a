"""Old pickled checkpoints become tensors and plain data, and training goes on from them."""

import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from helpers.models import train
from typer.testing import CliRunner

import hub
from hub.cli import app
from hub.saving.convert import convert_checkpoint
from hub.testing.comparing import assert_same

LOW_RANK = {
    "galore_adamw": {"rank": 4, "update_proj_gap": 2, "scale": 0.25, "proj_type": "std"},
    "apollo_adamw": {
        "rank": 4,
        "update_proj_gap": 2,
        "scale": 1.0,
        "proj_type": "std",
        "proj": "random",
        "scale_type": "channel",
    },
}


def bare(name, model):
    """The class itself, with groups as Transformers' Trainer makes them."""
    import apollo_torch
    import galore_torch

    classes = {"galore_adamw": galore_torch.GaLoreAdamW, "apollo_adamw": apollo_torch.APOLLOAdamW}
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    low = [(n, p) for n, p in trainable if "mlp" in n and n.endswith("weight")]
    rest = [(n, p) for n, p in trainable if all(n != other for other, _ in low)]
    optimizer = classes[name](
        [{"params": [p for _, p in rest]}, {"params": [p for _, p in low], **LOW_RANK[name]}],
        lr=1e-2,
        no_deprecation_warning=True,
    )
    return optimizer, [[n for n, _ in rest], [n for n, _ in low]]


@pytest.mark.parametrize("name", LOW_RANK)
def test_a_run_of_the_bare_class_continues_in_hub(name, make_model, tmp_path):
    whole = make_model()
    train(whole, bare(name, whole)[0], 6)
    half = make_model()
    optimizer, names = bare(name, half)
    train(half, optimizer, 3)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "optimizer.pt", weights_only=True)
    (tmp_path / "names.json").write_text(json.dumps(names))
    arguments = [name, str(tmp_path / "optimizer.pt"), str(tmp_path / "new.pt")]
    result = CliRunner().invoke(
        app,
        ["convert-checkpoint", *arguments, "--trust", "--names", str(tmp_path / "names.json")],
    )
    assert result.exit_code == 0, result.output
    model = make_model()
    model.load_state_dict(half.state_dict())
    ours = hub.build(name, model, target_modules="mlp", lr=1e-2, **LOW_RANK[name])
    ours.load_state_dict(torch.load(tmp_path / "new.pt", weights_only=True))
    train(model, ours, 3, start=3)
    assert_same(whole, model)


class Stranger:
    pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ({"weights": 1}, "not contain an optimizer's state dict"),
        (
            {"state": {0: {"x": Stranger()}}, "param_groups": [{"params": [0]}]},
            "objects that galore_adamw cannot convert",
        ),
    ],
)
def test_other_files_are_refused(content, says, tmp_path):
    file = tmp_path / "file.pt"
    if content is not None:
        torch.save(content, file)
    with pytest.raises(hub.CheckpointError, match=says):
        convert_checkpoint("galore_adamw", file, tmp_path / "new.pt", trust=True)
    assert not (tmp_path / "new.pt").exists()


def test_without_trust_nothing_is_unpickled(tmp_path):
    with pytest.raises(hub.CheckpointError, match="--trust"):
        convert_checkpoint(
            "galore_adamw", tmp_path / "is_not_even_there.pt", tmp_path / "new.pt", trust=False
        )


def test_names_have_to_fit(tmp_path):
    torch.save({"state": {}, "param_groups": [{"params": [0, 1]}]}, tmp_path / "file.pt")
    with pytest.raises(hub.CheckpointError, match=r"have \[2\] parameters, but \[1\]"):
        convert_checkpoint(
            "galore_adamw", tmp_path / "file.pt", tmp_path / "n.pt", trust=True, names=[["a"]]
        )


@pytest.mark.parametrize("configuration", ["{}", "no JSON", '{"model_type": "llama"}'])
def test_a_folder_whose_model_cannot_be_made_asks_for_names(configuration, tmp_path):
    torch.save({"state": {}, "param_groups": [{"params": [0]}]}, tmp_path / "optimizer.pt")
    torch.save(SimpleNamespace(optim_target_modules=["mlp"]), tmp_path / "training_args.bin")
    (tmp_path / "config.json").write_text(configuration)
    with pytest.raises(hub.CheckpointError, match="cannot be determined") as caught:
        convert_checkpoint(
            "galore_adamw", tmp_path / "optimizer.pt", tmp_path / "new.pt", trust=True
        )
    assert "--names" in caught.value.fix
    assert not (tmp_path / "new.pt").exists()
    names = [["a"]]
    convert_checkpoint(
        "galore_adamw", tmp_path / "optimizer.pt", tmp_path / "n.pt", trust=True, names=names
    )
    assert torch.load(tmp_path / "n.pt")["param_groups"][0]["param_names"] == ["a"]
