"""muon and AdamW over GPT-2 and Llama train as torch's two classes do, built by hand."""

import math
from itertools import chain

import pytest
import torch
from hub_muon.factory import orthogonalized
from torch.optim import _muon
from torch.optim.lr_scheduler import LambdaLR

import hub
from hub.testing.comparing import assert_same, through_a_file
from hub.updates.stacking import stacked

ARGUMENTS = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.05}
REST = {"lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}
MAX_NORM = 0.5
SIZES = {"vocab_size": 48}


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(**SIZES, **none, n_embd=16, n_layer=2, n_head=2))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    layers = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **heads, **layers))


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 4}
    layers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    return MixtralForCausalLM(MixtralConfig(**SIZES, **heads, **layers))


MODELS = {"gpt2": gpt2, "llama": llama}
HIDDEN = {
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
every_model = pytest.mark.parametrize("name", MODELS)


def make(name):
    torch.manual_seed(0)
    return MODELS[name]()


def build(model, **changes):
    return hub.build("muon", model, **{**ARGUMENTS, "rest": REST, **changes})


def is_hidden(name, parameter_name):
    return parameter_name.endswith(tuple(f"{layer}.weight" for layer in HIDDEN[name]))


def backward(model, step):
    tokens = torch.randint(0, 48, (4, 12), generator=torch.Generator().manual_seed(step))
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    return loss.item()


def factor(step):
    return min(1.0, (step + 1) / 3) * 0.9**step


class ByHand:
    """torch's Muon for hidden matrices, in the form (out, in), and AdamW for all else."""

    def __init__(self, name, model):
        named = dict(model.named_parameters())
        hidden = {key: p for key, p in named.items() if is_hidden(name, key)}
        others = [p for key, p in named.items() if key not in hidden]
        self.turned = name == "gpt2"
        self.pairs = [(p, p.detach().mT if self.turned else p) for p in hidden.values()]
        groups = [
            {"params": [p for p in others if p.ndim > 1]},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizers = (
            torch.optim.Muon([view for _, view in self.pairs], **ARGUMENTS),
            torch.optim.AdamW([group for group in groups if group["params"]], **REST),
        )
        self.schedules = [LambdaLR(optimizer, factor) for optimizer in self.optimizers]

    def step(self):
        for parameter, view in self.pairs:
            view.grad = parameter.grad.mT if self.turned else parameter.grad
        for each in chain(self.optimizers, self.schedules):
            each.step()


def train(model, optimizer, schedule, steps):
    """As a trainer does: clip, step, follow the schedule, free the gradients."""
    for step in steps:
        backward(model, step)
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model


@pytest.fixture
def products_of_stacks(monkeypatch):
    """Without vectors, let torch's Muon multiply matrices as hub does, in stacks.

    There torch 2.13 rounds those products in bf16 otherwise than single ones.
    """
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        return
    single = _muon._zeropower_via_newtonschulz

    def in_a_stack(matrix, *settings):
        expected = single(matrix, *settings)
        found = orthogonalized(stacked([matrix, matrix]), *settings)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
        return found

    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", in_a_stack)


@pytest.mark.usefixtures("products_of_stacks")
@every_model
def test_it_equals_the_two_classes_built_by_hand(name):
    ours, theirs = make(name), make(name)
    optimizer = build(ours)
    train(ours, optimizer, LambdaLR(optimizer, factor), range(8))
    by_hand = ByHand(name, theirs)
    for step in range(8):
        backward(theirs, step)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), MAX_NORM)
        by_hand.step()
        theirs.zero_grad()
    assert_same(ours, theirs)
    assert isinstance(optimizer.hub_members[0], torch.optim.Muon)
    assert type(optimizer.hub_members[1]).__mro__.index(torch.optim.AdamW) < 3


@every_model
def test_a_run_resumes_exactly_from_a_file_of_plain_tensors(name):
    straight, model, fresh = make(name), make(name), make(name)
    optimizer = build(straight)
    train(straight, optimizer, LambdaLR(optimizer, factor), range(6))
    optimizer = build(model)
    schedule = LambdaLR(optimizer, factor)
    train(model, optimizer, schedule, range(3))
    saved = through_a_file([part.state_dict() for part in (model, optimizer, schedule)])
    optimizer = build(fresh)
    resumed = fresh, optimizer, LambdaLR(optimizer, factor)
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    assert_same(train(*resumed, range(3, 6)), straight)


@every_model
def test_the_plan_says_which_algorithm_each_parameter_gets_and_why(name):
    model = make(name)
    plan = hub.plan("muon", model, **ARGUMENTS, rest=REST)
    found = {p.name: group.optimizer for group in plan.groups for p in group.parameters}
    expected = {
        key: "muon" if is_hidden(name, key) else "adamw_torch"
        for key, _ in model.named_parameters()
    }
    assert found == expected
    assert {finding.level for finding in plan.findings} <= {hub.Level.NOTE}


def test_experts_of_a_mixture_get_muon_and_its_router_gets_adamw():
    torch.manual_seed(0)
    model = mixtral()
    plan = hub.plan("muon", model, **ARGUMENTS)
    found = {p.name: group.optimizer for group in plan.groups for p in group.parameters}
    experts = {name: optimizer for name, optimizer in found.items() if ".experts." in name}
    assert set(experts.values()) == {"muon"}
    assert len(experts) == 4
    assert found["model.layers.0.mlp.gate.weight"] == "adamw_torch"
    optimizer = build(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = [train_once(model, optimizer) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


def train_once(model, optimizer):
    loss = backward(model, step=0)
    optimizer.step()
    optimizer.zero_grad()
    assert math.isfinite(loss)
    return loss


def test_what_a_trainer_passes_reaches_both_halves():
    model = make("llama")
    defaults = {"lr": 1e-4, "weight_decay": 0.3, "betas": (0.7, 0.8)}
    with pytest.warns(hub.HubWarning, match="match_rms_adamw"):
        optimizer = hub.build("muon", wide(), defaults=defaults)
    hub.detach(optimizer)
    optimizer = hub.build("muon", model, defaults=defaults, adjust_lr_fn="match_rms_adamw")
    muon, adamw = (
        [group for group in optimizer.param_groups if ("ns_steps" in group) is found]
        for found in (True, False)
    )
    assert {group["lr"] for group in muon + adamw} == {1e-4}
    assert {group["weight_decay"] for group in muon} == {0.3}
    assert {group["weight_decay"] for group in adamw} == {0.3, 0.0}
    assert {group["betas"] for group in adamw} == {(0.7, 0.8)}


def wide():
    return torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.LayerNorm(256))
