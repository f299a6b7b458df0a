"""TRL's SFTTrainer around the problem."""

import torch
from datasets import Dataset
from helpers.problem import BATCH, LENGTH, STEPS, VOCABULARY, rows, schedule_of
from helpers.trainer import settings
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast
from trl import SFTTrainer

WORDS = [f"w{number}" for number in range(3, VOCABULARY)]


def tokenizer():
    """Return one whose tokens are the problem's."""
    words = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *WORDS])}
    inner = Tokenizer(WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def text(seed):
    """Return as many words as a sample has tokens."""
    generator = torch.Generator().manual_seed(seed)
    return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (LENGTH,), generator=generator))


def config(cls, name, folder, **values):
    """Return a configuration of one of TRL's trainers."""
    return settings(folder, cls, bf16=False, lr_scheduler_type=schedule_of(name), **values)


def sft(model, given, **more):
    """Return a trainer with as many samples as its steps take."""
    count = STEPS * BATCH * given.world_size * given.gradient_accumulation_steps
    data = Dataset.from_list([{"input_ids": row["input_ids"].tolist()} for row in rows(count)])
    return SFTTrainer(model, given, train_dataset=data, processing_class=tokenizer(), **more)
