"""The model that every optimizer trains: a small Llama, or one from a local folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hub.errors import HubError
from hub.experiments import extra
from hub.quiet import no_output, no_warnings

if TYPE_CHECKING:
    from pathlib import Path

    import torch

VOCABULARY = 256
"""One token for each byte."""
SMALL_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
}
"""1.9 million parameters: large enough to learn words in 100 steps of a tenth of a second."""
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Never reach for the network, and never run code that lies beside a checkpoint.
LOCAL = {"local_files_only": True, "trust_remote_code": False}


def check(path: Path | None, sequence_length: int) -> None:
    """Refuse a model folder that cannot be trained here, before any process is started.

    Args:
        path: A folder with a Transformers configuration; None is the small Llama.
        sequence_length: Of the bytes that it is to read.

    Raises:
        HubError: Transformers is missing, the folder has no usable configuration, or the model is
            too small for bytes or for the sequence length.
    """
    extra.require("transformers")
    if path is not None:
        _configuration(path, sequence_length)


def build(path: Path | None, sequence_length: int) -> torch.nn.Module:
    """Make the model in fp32, with the weights of its folder or with fresh ones.

    Raises:
        HubError: As `check`, or the weights do not load.
    """
    import torch

    auto = extra.load("transformers").AutoModelForCausalLM
    if path is None:
        config = _small_llama(sequence_length)
    else:
        config = _configuration(path, sequence_length)
        if any((path / name).exists() for name in WEIGHTS):
            return cast("torch.nn.Module", _pretrained(auto, path))
    return cast("torch.nn.Module", auto.from_config(config, dtype=torch.float32))


def dtype_of(precision: str | None) -> torch.dtype:
    """Return the dtype of the parameters of a model that trains in a precision."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision or "", torch.float32)


def skeleton(path: Path | None, dtype: torch.dtype) -> torch.nn.Module:
    """Return the model on the meta device: names, shapes and kinds of layers, no memory.

    Raises:
        HubError: Transformers is missing, or the folder has no usable configuration.
    """
    import torch

    with no_output(), no_warnings():  # of what Transformers imports
        transformers = extra.load("transformers")
        config = _small_llama(1) if path is None else read_configuration(path)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return cast("torch.nn.Module", model)


def _small_llama(sequence_length: int) -> Any:
    return extra.load("transformers").LlamaConfig(
        **SMALL_LLAMA, max_position_embeddings=sequence_length
    )


def _configuration(path: Path, sequence_length: int) -> Any:
    config = read_configuration(path)
    _check_sizes(path, config.get_text_config(), sequence_length)
    return config


def read_configuration(path: Path) -> Any:
    """Return the configuration in a local folder.

    Raises:
        HubError: There is none, or Transformers cannot use it.
    """
    if not (path / "config.json").is_file():
        raise HubError(
            "this folder has no Transformers configuration",
            where=str(path),
            fix="name a local folder with a config.json",
        )
    try:
        return extra.load("transformers").AutoConfig.from_pretrained(path, **LOCAL)
    except (OSError, ValueError, KeyError) as error:
        raise HubError(
            f"Transformers cannot use the configuration: {error}",
            where=str(path / "config.json"),
            fix="name the folder of a causal language model that Transformers implements",
        ) from error


def _check_sizes(path: Path, config: Any, sequence_length: int) -> None:
    vocabulary = getattr(config, "vocab_size", 0)
    if vocabulary < VOCABULARY:
        raise HubError(
            f"the model has {vocabulary} tokens, but bytes need {VOCABULARY}",
            where=str(path / "config.json"),
            fix=f"use a model whose vocab_size is {VOCABULARY} or more",
        )
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and longest < sequence_length:
        raise HubError(
            f"the model takes {longest} tokens at most, and the sequences have {sequence_length}",
            where=str(path / "config.json"),
            fix=f"use a sequence length of {longest} or less",
        )


def _pretrained(auto: Any, path: Path) -> Any:
    import torch

    try:
        return auto.from_pretrained(path, dtype=torch.float32, **LOCAL)
    except Exception as error:  # every file format has its own errors
        raise HubError(
            f"the weights do not load: {error}",
            where=str(path),
            fix="repair the folder, or remove its weights to start from fresh ones",
        ) from error
