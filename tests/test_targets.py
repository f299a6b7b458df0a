"""Which linear layers `target_modules` takes."""

import pytest
import torch
from torch import nn

from hub.targets import select


def names(model, targets):
    return list(select(model, targets).modules)


def test_all_linear_takes_trainable_linear_layers_and_not_the_head(model):
    expected = [
        f"layers.{i}.{name}"
        for i in range(2)
        for name in ("attn.q_proj", "attn.o_proj", "mlp.0", "mlp.2")
    ]
    assert names(model, "all-linear") == expected
    assert names(model, "all_linear") == names(model, ["all-linear"]) == expected


def test_an_untied_head_is_left_out_of_all_linear_but_can_be_named(make_model):
    model = make_model()
    model.head.weight = nn.Parameter(torch.randn(32, 16))
    assert "head" not in names(model, "all-linear")
    assert names(model, ["head", "mlp.0"]) == ["layers.0.mlp.0", "layers.1.mlp.0", "head"]


def test_a_head_is_left_out_of_all_linear_inside_of_a_wrapper_too(make_model):
    """As of a LightningModule, which has no `get_output_embeddings()` of its own."""
    model = make_model()
    model.head.weight = nn.Parameter(torch.randn(32, 16))
    wrapped = nn.ModuleDict({"student": model, "probe": nn.Linear(2, 2)})
    found = names(wrapped, "all-linear")
    assert found == [f"student.{name}" for name in names(model, "all-linear")] + ["probe"]


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["attn", "mlp"], 8),
        ([r".*.attn.*", r".*.mlp.*"], 8),
        (r".*\.(q|o)_proj", 4),
        ("layers.1", 4),
        (("q_proj",), 2),
    ],
)
def test_names_and_expressions(model, targets, count):
    assert len(names(model, targets)) == count


def test_what_was_matched_and_not_taken_is_told(model):
    findings = [finding.what for finding in select(model, "attn").findings]
    assert findings == [
        "matched by target_modules but not linear (LayerNorm): layers.0.attn.q_norm, "
        "layers.1.attn.q_norm"
    ]
    told = " ".join(finding.what for finding in select(model, "all-linear").findings)
    assert "but frozen: frozen" in told
    assert "output head: head" in told


def test_a_weight_that_two_layers_share_is_taken_once(make_model):
    model = make_model()
    model.layers[1].mlp[0].weight = model.layers[0].mlp[0].weight
    selected = select(model, "mlp.0")
    assert list(selected.modules) == ["layers.0.mlp.0"]
    assert "already taken" in selected.findings[0].what


def test_conv1d_of_transformers_is_a_linear_layer():
    from transformers.pytorch_utils import Conv1D

    assert names(nn.Sequential(Conv1D(8, 4)), "all-linear") == ["0"]


def test_a_compiled_model_has_the_same_names(model):
    assert names(torch.compile(model, backend="eager"), "mlp") == names(model, "mlp")


@pytest.mark.parametrize("targets", [["attn", "mlp"], [r".*.attn.*", r".*.mlp.*"], [".*q_proj"]])
def test_like_transformers_on_a_real_model(targets):
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.trainer_utils import check_target_module_exists

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=11,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    theirs = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and check_target_module_exists(targets, name)
    ]
    assert names(model, targets) == theirs
