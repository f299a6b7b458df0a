"""Which linear layers `target_modules` takes."""

import warnings

import pytest
import torch
from helpers.unchanged import unchanged
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import hub
from hub.groups.modules import transposed_weights
from hub.groups.targets import select_targets


def names(model, targets):
    return list(select_targets(model, targets).modules)


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
    findings = [finding.what for finding in select_targets(model, "attn").findings]
    assert findings == [
        "matched by target_modules but not linear (LayerNorm): layers.0.attn.q_norm, "
        "layers.1.attn.q_norm"
    ]
    told = " ".join(finding.what for finding in select_targets(model, "all-linear").findings)
    assert "but frozen: frozen" in told
    assert "output head: head" in told


def test_a_weight_that_two_layers_share_is_taken_once(make_model):
    model = make_model()
    model.layers[1].mlp[0].weight = model.layers[0].mlp[0].weight
    selected = select_targets(model, "mlp.0")
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


class OwnLinear(nn.Module):
    """A user's own linear layer, which is no `nn.Linear`."""

    def __init__(self, columns, rows):
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(columns, rows).weight.detach())

    def forward(self, x):
        return x @ self.weight.mT


class LowRankDelta(nn.Module):
    """What is added to a weight, as LoRA does it by parametrization."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.zeros(2, 8))

    def forward(self, weight):
        return weight + self.a @ self.b


def with_delta(layer):
    parametrize.register_parametrization(layer, "weight", LowRankDelta())
    return layer


PARAMETRIZED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "LoRA": with_delta,
    "older spectral_norm": nn.utils.spectral_norm,
}


@pytest.mark.parametrize("targets", ["all-linear", r"\d"])
@pytest.mark.parametrize("parametrized", PARAMETRIZED.values(), ids=PARAMETRIZED)
def test_a_parametrized_layer_has_no_weight_to_take_and_is_told(parametrized, targets):
    model = nn.Sequential(nn.Linear(8, 8), parametrized(nn.Linear(8, 8)))
    plan = hub.plan("galore_adamw", model, target_modules=targets, rank=2)
    assert plan.target_modules == ("0",)
    assert [[p.name for p in group.parameters] for group in plan.groups if group.low_rank] == [
        ["0.weight"]
    ]
    (told,) = [finding for finding in plan.findings if finding.level is hub.Level.WARN]
    assert "weight computed from other parameters" in told.what
    assert told.what.endswith(": 1")


@pytest.mark.parametrize("targets", ["all-linear", "0"])
@pytest.mark.parametrize("parametrized", PARAMETRIZED.values(), ids=PARAMETRIZED)
def test_a_model_of_parametrized_layers_is_refused(parametrized, targets):
    model = nn.Sequential(parametrized(nn.Linear(8, 8)))
    with pytest.raises(hub.TargetModulesError, match="1 weight computed from other parameters"):
        hub.plan("galore_adamw", model, target_modules=targets)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_the_older_weight_norm_is_refused():
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 8)))
    with pytest.raises(hub.TargetModulesError, match="computed from other parameters"):
        hub.plan("galore_adamw", model, target_modules="all-linear")


@pytest.mark.parametrize(
    ("model", "says", "fix"),
    [
        (nn.Sequential(OwnLinear(4, 4), OwnLinear(4, 4)), "only 2 OwnLinear", '["0"]'),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "1 Conv2d", "needs no target"),
        (nn.Sequential(nn.Embedding(4, 4)), "1 Embedding", "needs no target"),
        (nn.Linear(4, 4).requires_grad_(False), "1 frozen", "needs no target"),
    ],
    ids=["own class", "convolutions", "embedding", "frozen"],
)
def test_all_linear_that_finds_nothing_says_what_there_is(model, says, fix):
    with unchanged(model), pytest.raises(hub.TargetModulesError, match=says) as refused:
        select_targets(model, "all-linear")
    assert "nn.Linear" in refused.value.what
    assert fix in refused.value.fix


def test_a_head_alone_is_not_taken(make_model):
    model = make_model(depth=0)
    with pytest.raises(hub.TargetModulesError, match="1 frozen, 1 output head"):
        select_targets(model, "all-linear")


def test_a_module_of_another_class_is_taken_where_a_pattern_ends_its_name():
    model = nn.ModuleDict({"layers": nn.ModuleList([OwnLinear(4, 4), nn.Linear(4, 4)])})
    assert names(model, "layers.0") == names(model, "0") == ["layers.0"]
    assert names(model, "layers") == names(model, ".*") == ["layers.1"]
    assert names(model, ["layers", "0"]) == ["layers.0", "layers.1"]


@pytest.mark.parametrize("module", [nn.Embedding(4, 4), nn.LayerNorm((4, 4)), nn.Conv1d(4, 4, 1)])
def test_what_is_no_linear_layer_is_not_taken_even_if_it_is_named(module):
    with pytest.raises(hub.TargetModulesError, match=rf"not linear \({type(module).__name__}\)"):
        select_targets(nn.Sequential(module), "0")


@pytest.mark.parametrize("name", hub.list_optimizers())
def test_a_plan_computes_no_parametrization(name):
    """Reading the weight of a layer with `spectral_norm` changes its buffers in training."""
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Embedding(8, 8)),
        parametrizations.spectral_norm(nn.Linear(8, 8)),
        nn.Linear(8, 8),
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    low_rank = hub.Trait.LOW_RANK in hub.describe(name).traits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hub.HubWarning)
        hub.build(name, model, target_modules="all-linear" if low_rank else None)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_weight_of_another_class_trains_as_that_of_a_linear_layer():
    def trained(layer):
        model = nn.Sequential(layer)
        optimizer = hub.build("galore_adamw", model, target_modules="0", rank=2, lr=0.1)
        for step in range(3):
            model.zero_grad()
            model(torch.full((2, 8), step + 1.0)).square().sum().backward()
            optimizer.step()
        return layer.weight

    linear, own = nn.Linear(8, 4, bias=False), OwnLinear(8, 4)
    own.weight = nn.Parameter(linear.weight.detach().clone())
    assert torch.equal(trained(linear), trained(own))


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=8,
    )
    with torch.device("meta"):
        return MixtralForCausalLM(config)


EXPERTS = [
    f"model.layers.{i}.mlp.experts.{name}"
    for i in range(2)
    for name in ("gate_up_proj", "down_proj")
]


@pytest.mark.parametrize(
    ("targets", "selected"),
    [
        ("all-linear", EXPERTS),
        ("mlp", EXPERTS),
        ("layers.1", EXPERTS[2:]),
        (r".*\.experts", EXPERTS),
        ("down_proj", EXPERTS[1::2]),
        ("self_attn", []),
    ],
)
def test_stacks_of_experts_are_selected_where_they_are_asked_for(targets, selected):
    model = mixtral()
    found = select_targets(model, targets, stacks=True)
    assert list(found.stacks) == selected
    parameters = dict(model.named_parameters())
    assert found.weights == {
        *(parameters[name] for name in selected),
        *(module.weight for module in found.modules.values()),
    }
    assert not [finding for finding in found.findings if "Experts" in finding.what]


def test_stacks_are_matrices_for_low_rank_neither_by_default_nor_by_name():
    assert not select_targets(mixtral(), "all-linear").stacks
    with pytest.raises(hub.TargetModulesError, match=r"'down_proj' matches no module"):
        select_targets(mixtral(), "down_proj")


class Pairs(nn.Module):
    """Two 3-D parameters that no expert owns, and what looks like them."""

    def __init__(self):
        super().__init__()
        self.fast, self.slow = (nn.Parameter(torch.zeros(2, 3, 4)) for _ in range(2))
        self.position = nn.Parameter(torch.zeros(1, 3, 4))
        self.conv = nn.Conv1d(3, 4, 5)
        self.norm = nn.LayerNorm((2, 3, 4))
        self.out = nn.Linear(3, 4)


def test_another_3d_parameter_is_selected_if_a_pattern_names_it():
    model = nn.ModuleDict({"pairs": Pairs()})
    found = select_targets(model, "all-linear", stacks=True)
    assert (list(found.modules), list(found.stacks)) == (["pairs.out"], [])
    found = select_targets(model, ["pairs.slow", "out"], stacks=True)
    assert (list(found.modules), list(found.stacks)) == (["pairs.out"], ["pairs.slow"])
    with pytest.raises(hub.TargetModulesError, match=r"1 3-D, and not of experts \(Pairs\)"):
        select_targets(model, "fas", stacks=True)
    for pattern in ("conv", "conv.weight", "norm", "norm.weight"):
        with pytest.raises(hub.TargetModulesError, match=r"not linear|no module"):
            select_targets(model, pattern, stacks=True)


def test_a_frozen_stack_is_told_and_one_that_two_layers_share_is_taken_once():
    model = mixtral()
    first, second = (layer.mlp.experts for layer in model.model.layers)
    first.down_proj.requires_grad_(False)
    second.gate_up_proj = first.gate_up_proj
    found = select_targets(model, "all-linear", stacks=True)
    assert list(found.stacks) == [EXPERTS[0], EXPERTS[3]]
    told = " ".join(finding.what for finding in found.findings)
    assert f"frozen: {EXPERTS[1]}" in told
    assert f"already taken: {EXPERTS[2]}" in told


def test_weights_stored_as_in_out_are_those_of_conv1d_and_of_marked_experts():
    from transformers import GptOssConfig, GptOssForCausalLM
    from transformers.pytorch_utils import Conv1D

    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    with torch.device("meta"):
        model = GptOssForCausalLM(GptOssConfig(**sizes, **heads, num_local_experts=2))
    experts = model.model.layers[0].mlp.experts
    assert transposed_weights(model) == {experts.gate_up_proj, experts.down_proj}
    layer = Conv1D(8, 4)
    assert transposed_weights(nn.Sequential(layer, nn.Linear(4, 4))) == {layer.weight}
    assert transposed_weights(mixtral()) == set()


def test_experts_in_3d_weights_are_told_with_the_share_that_is_low_rank():
    model = mixtral()
    plan = hub.plan("galore_adamw", model, target_modules="all-linear", rank=4)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    low_rank = sum(sizes[f"{name}.weight"] for name in plan.target_modules)
    (told,) = [finding for finding in plan.findings if finding.level is hub.Level.WARN]
    share = low_rank / sum(sizes.values())
    assert 0 < share < 0.1
    assert told.what.startswith(f"{share:.1%} of the trainable parameters are low-rank")
    assert "experts.gate_up_proj (8×128×16), which galore_adamw trains at full rank" in told.what


def test_most_weights_in_linear_layers_is_nothing_to_tell(model):
    plan = hub.plan("galore_adamw", model, target_modules="all-linear", rank=4)
    assert {finding.level for finding in plan.findings} == {hub.Level.NOTE}
    assert not [f for f in plan.findings if "rank" in f.what]


@pytest.mark.parametrize(
    ("rank", "told"), [(15, None), (16, "8 of 8 target weights"), (32, "(16×16)")]
)
def test_a_rank_that_is_not_low_is_told(rank, told, model):
    plan = hub.plan("galore_adamw", model, target_modules="all-linear", rank=rank)
    found = [f.what for f in plan.findings if f.what.startswith(f"rank={rank}")]
    assert len(found) == (told is not None)
    assert all(told in what for what in found)
