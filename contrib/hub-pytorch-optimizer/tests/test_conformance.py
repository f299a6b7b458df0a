"""The offered optimizers keep hub's promises.

All checks of the eager form, and for layerwise forms those in which they may differ, ran for all of
them when the table was written. Here the whole kit runs for three, and for the others what depends
most on the versions of both packages.
"""

import json

import pytest
from hub_pytorch_optimizer.hooks import TABLE

from hub.testing import Subject, conformance, run

NAMES = [row["name"] for row in json.loads(TABLE.read_text())]

test_conformance = conformance("po_lion", "po_adabelief", "po_adagc")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", ["trains", "resume", "covers", "offloads"])
def test_it_trains_and_resumes(check, name):
    run(check, Subject(name))


@pytest.mark.parametrize("name", NAMES)
def test_bf16_weights_learn_as_fp32_weights_do(name):
    run("splits", Subject(name, "bf16"))
