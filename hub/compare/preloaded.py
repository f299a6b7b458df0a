"""Imported once, by the process that becomes the process of each training."""

from contextlib import suppress

from hub.errors import HubError
from hub.experiments import extra
from hub.quiet import no_output, no_warnings

with no_output(), no_warnings(), suppress(HubError):  # without Transformers there are other tasks
    extra.load("transformers.models.llama.modeling_llama")
