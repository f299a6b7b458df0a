"""The text that every optimizer trains on, as bytes, and the batches drawn from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

HELD_OUT = 10
"""One in so many bytes, at the end of the text, is only evaluated on."""
EVALUATION_BATCHES = 8


@dataclass(frozen=True)
class Corpus:
    """A text in two parts; every byte is a token."""

    source: str
    training: bytes
    held_out: bytes

    @property
    def sha256(self) -> str:
        """Hex digest of the whole text."""
        return hashlib.sha256(self.training + self.held_out).hexdigest()


def load(path: Path | None, sequence_length: int) -> Corpus:
    """Read a text, and set its end apart.

    Args:
        path: A UTF-8 file, or None for the help text of Python's standard library.
        sequence_length: Tokens of the windows that both parts must hold at least one of.

    Raises:
        HubError: The file cannot be read, is not UTF-8, or is too short.
    """
    text = _read(path) if path else _python_help()
    return divided(str(path) if path else "the help text of Python", text, sequence_length)


def divided(source: str, text: bytes, sequence_length: int) -> Corpus:
    """Set the end of a text apart.

    Raises:
        HubError: It is too short.
    """
    tail = len(text) // HELD_OUT
    if tail < sequence_length:
        raise HubError(
            f"the text has {len(text)} bytes: too few to train on and to hold some out",
            where=source,
            fix=f"use a text of {sequence_length * HELD_OUT} bytes or more, "
            "or a shorter sequence length",
        )
    return Corpus(source, text[:-tail], text[-tail:])


def training_batches(corpus: Corpus, batch_size: int, length: int, seed: int) -> Iterator[Tensor]:
    """Draw windows at random places for ever: the same ones in the same order for one seed."""
    import torch

    tokens = _tokens(corpus.training)
    generator = torch.Generator().manual_seed(seed)
    while True:
        places = (len(tokens) - length + 1, (batch_size,))
        yield _windows(tokens, torch.randint(*places, generator=generator), length)


def evaluation_batches(corpus: Corpus, batch_size: int, length: int) -> Iterator[Tensor]:
    """Cut the held-out text into windows, evenly spread over it and at most a few batches."""
    import torch

    tokens = _tokens(corpus.held_out)
    count = min(len(tokens) // length, EVALUATION_BATCHES * batch_size)
    starts = torch.linspace(0, len(tokens) - length, count).long()
    for some in torch.split(starts, batch_size):
        yield _windows(tokens, some, length)


def _read(path: Path) -> bytes:
    try:
        text = path.read_bytes()
        text.decode("utf-8")
    except OSError as error:
        raise HubError(
            f"the text cannot be read: {error.strerror}",
            where=str(path),
            fix="name a readable file",
        ) from error
    except UnicodeDecodeError as error:
        raise HubError(
            f"the text is not UTF-8: byte {error.start} cannot be decoded",
            where=str(path),
            fix="convert it to UTF-8",
        ) from error
    return text


def _python_help() -> bytes:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


def _tokens(text: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _windows(tokens: Tensor, starts: Tensor, length: int) -> Tensor:
    import torch

    return tokens[starts[:, None] + torch.arange(length)].long()
