import json

import pytest
import torch

from hub.errors import HubError
from hub.experiments import extra, model


def build(folder=None) -> torch.nn.Module:
    torch.manual_seed(0)
    return model.build(folder, 32)


def test_default_is_a_small_llama():
    model.check(None, 32)
    parameters = sum(one.numel() for one in build().parameters())
    assert 1_000_000 < parameters < 2_000_000


def test_folder_without_weights_gives_fresh_ones(model_folder):
    model.check(model_folder, 32)
    first, second = build(model_folder).state_dict(), build(model_folder).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_folder_with_weights_gives_those(model_folder, tmp_path):
    saved = build(model_folder).bfloat16()
    saved.save_pretrained(tmp_path)
    torch.manual_seed(7)
    loaded = build(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], one.float()) for name, one in saved.state_dict().items())


def test_folder_must_have_a_configuration(tmp_path):
    with pytest.raises(HubError, match="no Transformers configuration"):
        model.check(tmp_path / "none", 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 255}, "255 tokens"),
        ({"max_position_embeddings": 31}, "31 tokens at most"),
        ({"model_type": "no such model"}, "cannot use the configuration"),
    ],
)
def test_unusable_configurations_are_refused(model_folder, tmp_path, change, message):
    config = json.loads((model_folder / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HubError, match=message):
        model.check(tmp_path, 32)


def test_broken_weights_are_refused(model_folder, tmp_path):
    (tmp_path / "config.json").write_text((model_folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(HubError, match="do not load"):
        build(tmp_path)


def test_missing_package_names_the_extra():
    with pytest.raises(HubError) as caught:
        extra.load("no_such_package.part")
    assert 'pip install "hub[compare]"' in caught.value.fix
