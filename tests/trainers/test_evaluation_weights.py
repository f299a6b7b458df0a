"""Lightning and PEFT call parts and methods of a model; ScheduleFree is right all the same."""

import copy

import lightning.pytorch as pl
import peft
import pytest
import schedulefree
import torch
from helpers.lit import ITS_OWN_WARNINGS, trainer
from torch import nn
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

import hub
from hub.testing.comparing import assert_same

pytestmark = [*map(pytest.mark.filterwarnings, ITS_OWN_WARNINGS)]
BATCHES = 12
EVERY = 4
ACCUMULATION = 2


class Autoencoder(nn.Module):
    """Nobody calls it: its methods are called."""

    def __init__(self):
        super().__init__()
        self.down = nn.Linear(8, 4)
        self.up = nn.Linear(4, 8)
        self.scale = nn.Parameter(torch.ones(4))

    def encode(self, x):
        return torch.tanh(self.down(x)) * self.scale

    def decode(self, z):
        return self.up(z)


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.ae = Autoencoder()
        self.evaluations = []

    def loss(self, x):
        return (self.ae.decode(self.ae.encode(x)) - x).square().mean()

    def training_step(self, x):
        return self.loss(x)

    def validation_step(self, x):
        self.evaluations.append(self.ae.decode(self.ae.encode(x)))

    def configure_optimizers(self):
        return hub.build("schedule_free_adamw", self, lr=0.05)


def batches(count):
    return [torch.randn(3, 8, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def upstreams(module, **arguments):
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = schedulefree.AdamWScheduleFree(parameters, **arguments)
    optimizer.train()
    return optimizer


def evaluated_by_hand(module, optimizer, call):
    """Return what a call gives with upstream's evaluation weights; the training goes on exactly."""
    before = copy.deepcopy(module.state_dict())
    optimizer.eval()
    with torch.no_grad():
        found = call()
    module.load_state_dict(before)
    for group in optimizer.param_groups:
        group["train_mode"] = True
    return found


@pytest.mark.parametrize("compiled", [False, True])
# torch 2.13 reads it when it resumes a function after the switch.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_lightning_with_methods(tmp_path, compiled):
    module = Module()
    if compiled:
        module.ae.encode = torch.compile(module.ae.encode, backend="eager")
    data = [DataLoader(batches(n), batch_size=None) for n in (BATCHES, 1)]
    trainer(
        tmp_path, val_check_interval=EVERY, limit_val_batches=1,
        accumulate_grad_batches=ACCUMULATION,
    ).fit(module, *data)  # fmt: skip
    by_hand = Module()
    optimizer = upstreams(by_hand, lr=0.05)
    expected = []
    for number, x in enumerate(batches(BATCHES), start=1):
        (by_hand.loss(x) / ACCUMULATION).backward()
        if number % ACCUMULATION == 0:
            optimizer.step()
            optimizer.zero_grad()
        if number % EVERY == 0:
            expected += evaluated_by_hand(
                by_hand, optimizer, lambda: [by_hand.ae.decode(by_hand.ae.encode(batches(1)[0]))]
            )
    assert len(module.evaluations) == len(expected) == BATCHES // EVERY
    for ours, theirs in zip(module.evaluations, expected, strict=True):
        assert torch.equal(ours, theirs)
    module.train()
    assert_same(module, by_hand)


def adapted():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=2, eos_token_id=1,
        pad_token_id=0,
    )  # fmt: skip
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(LlamaForCausalLM(config), lora)


def tokens(step):
    return torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(step))


def generated(model):
    out = model.generate(
        input_ids=tokens(99), max_new_tokens=5, min_new_tokens=5, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return torch.stack(out.logits)


# transformers 5.23 warns of what peft 0.21.2 reads.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_generate_of_a_model_with_adapters():
    model, by_hand = adapted(), adapted()
    optimizer = hub.build("schedule_free_adamw", model, lr=0.05)
    bare = upstreams(by_hand, lr=0.05)
    for step in range(6):
        for m, o in ((model, optimizer), (by_hand, bare)):
            m.train()
            m(input_ids=tokens(step), labels=tokens(step)).loss.backward()
            o.step()
            o.zero_grad()
        model.eval()
        by_hand.eval()
        expected = evaluated_by_hand(by_hand, bare, lambda: generated(by_hand))
        assert torch.equal(generated(model), expected)
        saved = peft.get_peft_model_state_dict(model)
        theirs = evaluated_by_hand(
            by_hand, bare, lambda: copy.deepcopy(peft.get_peft_model_state_dict(by_hand))
        )
        assert saved.keys() == theirs.keys()
        assert all(torch.equal(saved[key], theirs[key]) for key in saved)
    model.train()
    assert_same(model, by_hand)
