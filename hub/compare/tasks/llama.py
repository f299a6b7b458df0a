"""Next bytes of a text, by a small Llama or by a model from a local folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare.result import digest
from hub.compare.tasks import corpus
from hub.compare.tasks.task import Task
from hub.experiments import model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from hub.compare.tasks import Options
    from hub.compare.tasks.corpus import Corpus

BATCH_SIZE, LENGTH = 8, 128
TAKES = ("batch_size", "sequence_length", "data", "model")
PRELOADED = ("hub.compare.tasks.preloaded_llama",)


def check(options: Options) -> None:
    """Check the model folder and the text.

    Raises:
        HubError: They cannot be used, or Transformers is missing.
    """
    length = options.sequence_length or LENGTH
    model.check(options.model, length)
    corpus.load(options.data, length)


def make(options: Options) -> Task:
    """Return the task.

    Raises:
        HubError: The text cannot be used.
    """
    batch_size, length = options.batch_size or BATCH_SIZE, options.sequence_length or LENGTH
    text = corpus.load(options.data, length)

    return Task(
        name="llama",
        summary=f"{options.model or 'a small Llama'} on {text.source}, byte by byte, "
        f"{batch_size} sequences of {length} bytes a step",
        model=lambda _: model.build(options.model, length),
        batches=lambda seed: corpus.training_batches(text, batch_size, length, seed),
        loss=loss,
        evaluate=lambda module: evaluate(module, text, batch_size, length),
        tokens=batch_size * length,
        fingerprint=digest(
            [text.sha256, of_model(options.model, model.SMALL_LLAMA), batch_size, length]
        ),
    )


def loss(module: nn.Module, batch: Tensor) -> Tensor:
    """Return the mean negative log likelihood of the bytes, in nats."""
    found: Tensor = module(input_ids=batch, labels=batch, use_cache=False).loss
    return found


def evaluate(module: nn.Module, text: Corpus, batch_size: int, length: int) -> float:
    """Return the mean loss on the held-out text."""
    device = next(module.parameters()).device
    losses = [
        (loss(module, batch.to(device)).item(), len(batch))
        for batch in corpus.evaluation_batches(text, batch_size, length)
    ]
    return sum(one * size for one, size in losses) / sum(size for _, size in losses)


def of_model(path: Path | None, own: object) -> object:
    """Return what tells models apart that losses depend on: the task's own ones, and folders."""
    if path is None:
        return own
    files = sorted(path.glob("*.json")) + sorted(path.glob("*.safetensors"))
    return [(file.name, file.stat().st_size) for file in files] + [
        (path / "config.json").read_text()
    ]
