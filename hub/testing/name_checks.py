"""Check that the names of parameters decide nothing: P3."""

from __future__ import annotations

from torch import nn

from hub.testing.expect import expect
from hub.testing.subject import Subject, train_on_fixed_gradients

NAMES = {
    "embed": "detour",
    "conv": "attn",
    "blocks": "embed",
    "detour": "head",
    "gain": "conv",
    "out": "layers",
    "head": "out",
    "attn": "up",
    "norm": "down",
    "up": "gate",
    "down": "embed_tokens",
}
"""From the names of the kit's model to others, none of which says what it stands for."""


def names(subject: Subject) -> None:
    """P3: what a parameter gets depends on what it is, not on what it is called.

    The layers of a model change names; on the same gradients all weights come out the same.
    """
    usual = subject.model()
    called = subject.model()
    other = _renamed(called)
    train_on_fixed_gradients(usual, subject.build(usual))
    train_on_fixed_gradients(other, subject.build(other))
    pairs = zip(usual.named_parameters(), other.named_parameters(), strict=True)
    wrong = [f"{old} → {new}" for (old, p), (new, q) in pairs if not p.equal(q)]
    expect(not wrong, f"under another name these parameters are updated differently: {wrong}")


def _renamed(module: nn.Module) -> nn.Module:
    """Return modules of the same kinds and parameters in the same order, under other names."""
    children = [(NAMES.get(name, name), child) for name, child in module.named_children()]
    if not children:
        return module
    renamed = nn.Module()
    for name, child in children:
        renamed.add_module(name, _renamed(child))
    for name, parameter in module.named_parameters(recurse=False):
        renamed.register_parameter(NAMES.get(name, name), parameter)
    return renamed
