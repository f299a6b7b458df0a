"""Imported once, by the process that becomes the process of each training of a Llama."""

from hub.experiments import extra
from hub.quiet import no_output, no_warnings

with no_output(), no_warnings():
    extra.load("transformers.models.llama.modeling_llama")
