"""`generate()` and other methods of Transformers' models see the evaluation weights."""

import pytest
import torch
from helpers.train_eval import pair
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

SMALL = {"vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1}


def t5():
    return T5ForConditionalGeneration(
        T5Config(
            **SMALL, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4,
            decoder_start_token_id=0, dropout_rate=0.0,
        )
    )  # fmt: skip


def bart():
    return BartForConditionalGeneration(
        BartConfig(
            **SMALL, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
            decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
            max_position_embeddings=32, bos_token_id=2, decoder_start_token_id=1,
            forced_eos_token_id=None, dropout=0.0,
        )
    )  # fmt: skip


def llama():
    return LlamaForCausalLM(
        LlamaConfig(
            **SMALL, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, bos_token_id=2,
        )
    )  # fmt: skip


def tokens(step):
    return torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(step))


def steps(model, optimizer, numbers=range(4)):
    model.train()
    for step in numbers:
        model(input_ids=tokens(step), labels=tokens(step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def generated(model):
    """Return the logits of five greedy tokens, (5, 2, 64)."""
    out = model.generate(
        tokens(99), max_new_tokens=5, min_new_tokens=5, do_sample=False,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    return torch.stack(out.logits)


@pytest.mark.parametrize("family", [t5, bart, llama], ids=lambda family: family.__name__)
def test_generate_equals_what_eval_by_hand_gives(family):
    def make():
        torch.manual_seed(0)
        return family()

    model, optimizer, by_hand = pair(make, steps)
    for _ in range(2):
        model.eval()
        assert torch.equal(generated(model), generated(by_hand))
        if family is not llama:
            encode = [m.get_encoder()(input_ids=tokens(98))[0] for m in (model, by_hand)]
            assert torch.equal(*encode)
        model.train()
    steps(model, optimizer, range(4, 6))
    _, _, longer = pair(make, lambda m, o: steps(m, o, range(6)))
    assert torch.equal(generated(model.eval()), generated(longer))


def test_what_is_saved_is_what_is_evaluated(tmp_path):
    def make():
        torch.manual_seed(0)
        return t5()

    model, _, by_hand = pair(make, steps)
    model.save_pretrained(tmp_path)  # in training mode
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(generated(loaded), generated(by_hand))
