"""What the GaLore names cannot do is refused when they are built."""

import pytest
import torch
from galore_torch.galore_projector import GaLoreProjector

import hub

from .wrapped import build, every_name, make_model


@every_name
def test_a_reverse_projection_that_cannot_go_back_is_refused(name):
    with pytest.raises(hub.OptimArgsError, match="64x128 weight at rank 64") as refused:
        build(name, make_model(), proj_type="reverse_std", rank=64)
    assert refused.value.where == "2"
    build(name, make_model(), proj_type="reverse_std", rank=63)


def test_the_upstream_projector_cannot_project_that_back():
    """When this fails, `hooks._irreversible` is not needed any more."""
    projector = GaLoreProjector(64, proj_type="reverse_std")
    projected = projector.project(torch.randn(64, 128), 0)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        projector.project_back(projected)
