"""LoRA adapters by which a small model of Python's documentation learns to write Python."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, cast

from hub.compare.result import digest
from hub.compare.tasks import corpus, llama, pretrained
from hub.compare.tasks.task import Task
from hub.experiments import extra, model
from hub.quiet import no_output, no_warnings

if TYPE_CHECKING:
    from torch import nn

    from hub.compare.tasks import Options
    from hub.compare.tasks.corpus import Corpus

BATCH_SIZE, LENGTH = 8, 64
TAKES = llama.TAKES
PRELOADED = ("hub.compare.tasks.preloaded_llama",)
ADAPTERS = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
MODULES = (
    "argparse",
    "ast",
    "dataclasses",
    "inspect",
    "pathlib",
    "statistics",
    "tarfile",
    "typing",
)
"""Of the standard library: their text is what adapters learn."""


def check(options: Options) -> None:
    """Check the packages, the model folder and the text.

    Raises:
        HubError: They cannot be used, or a package is missing.
    """
    length = options.sequence_length or LENGTH
    extra.require("peft")
    model.check(options.model, length)
    _text(options, length)


def make(options: Options) -> Task:
    """Return the task.

    Raises:
        HubError: The text cannot be used.
    """
    batch_size, length = options.batch_size or BATCH_SIZE, options.sequence_length or LENGTH
    text = _text(options, length)
    base = llama.of_model(options.model, pretrained.recipe())
    return Task(
        name="lora",
        summary=f"LoRA of rank {ADAPTERS['r']} on {options.model or 'a small Llama'} that learns "
        f"{text.source}, {batch_size} sequences of {length} bytes a step",
        model=lambda _: with_adapters(_base(options, length)),
        batches=lambda seed: corpus.training_batches(text, batch_size, length, seed),
        loss=llama.loss,
        evaluate=lambda module: llama.evaluate(module, text, batch_size, length),
        tokens=batch_size * length,
        fingerprint=digest([text.sha256, base, ADAPTERS, batch_size, length]),
    )


def with_adapters(base: nn.Module) -> nn.Module:
    """Freeze a model, and give its linear layers adapters that change nothing yet."""
    with (
        no_output(),
        no_warnings(),
    ):  # of what peft imports, and of what it calls that is deprecated
        peft = extra.load("peft")
        return cast("nn.Module", peft.get_peft_model(base, peft.LoraConfig(**ADAPTERS)))


def _base(options: Options, length: int) -> nn.Module:
    return model.build(options.model, length) if options.model else pretrained.load()


def _text(options: Options, length: int) -> Corpus:
    if options.data is not None:
        return corpus.load(options.data, length)
    return corpus.divided("the standard library of Python", _library(), length)


def _library() -> bytes:
    """Return the text of a few modules of the standard library."""
    texts = []
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        loader: Any = spec and spec.loader
        texts.append(loader.get_source(name))
    return "\n\n".join(texts).encode()
