"""docs/gpu.md is made of what was measured on a GPU, and of nothing else."""

import json
import subprocess
import sys

import pytest
import torch

from hub.bench import Report, Row
from hub.testing import cases
from tests.docs.conftest import DOCS, generator

MEASURE = generator("measure_gpu")
GENERATE = generator("generate_gpu")
MAIN = MEASURE["main"].__globals__
CHECKS = {"trains", "resume", "refused"}


def report(**figures):
    row = Row(
        label="adamw_torch",
        parameters=10,
        tensors=1,
        ms=1.0,
        fused_ms=2.0,
        bandwidth=4e12,
        **figures,
    )
    settings = {"precision": "fp32"}
    return Report(
        settings=settings, device="G1", date="2026-11-22", versions={"torch": "2.13.0"}, rows=(row,)
    ).to_dict()


RECORDED = {
    "date": "2026-11-22",
    "device": "G1",
    "driver": "580.1",
    "cuda": "13.0",
    "versions": {"torch": "2.13.0+cu130", "galore-torch": "1.0"},
    "bench": {"large": report(device_ms=0.75), "small": report()},
    "kit": {
        "adamw_torch": {
            "fp32": {"kept": 31, "others": {}},
            "bf16": {"kept": 30, "others": {"resume": "broken: other weights of ['a']"}},
            "fp16": {"kept": 0, "others": {"refused": "refused"}},
        },
        "sgd": {"fp32": {"kept": 30, "others": {"copies": "known: its package copies nothing"}}},
    },
}


def test_the_page_says_what_was_recorded():
    text = GENERATE["page"](RECORDED)
    assert "G1, driver 580.1, CUDA 13.0, 2026-11-22. Versions: torch 2.13.0+cu130, " in text
    assert "| `adamw_torch` | 31 | **30, 1 broken** | refused | – |" in text
    assert "| `sgd` | 30 | – | – | – |" in text
    assert "Broken:\n\n- `adamw_torch`, resume, bf16: other weights of ['a'].\n" in text
    assert "- `sgd`, copies, fp32: its package copies nothing." in text
    assert "| `adamw_torch` | 1.00 |" in text
    assert "0.75" in text
    assert "hub bench" not in GENERATE["page"](RECORDED | {"bench": {}})
    assert "## A step" not in GENERATE["page"](RECORDED | {"bench": {}})


def test_there_is_a_page_only_with_figures(tmp_path):
    command = [sys.executable, DOCS / "generate_gpu.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert (DOCS / "gpu.md").exists() == (DOCS / "gpu.json").exists()
    recorded = tmp_path / "gpu.json"
    assert DOCS / "gpu.md" not in GENERATE["texts"](recorded)
    recorded.write_text(json.dumps(RECORDED))
    texts = GENERATE["texts"](recorded)
    assert "](gpu.md)" in texts[DOCS / "index.md"]
    assert texts[DOCS / "gpu.md"] == GENERATE["page"](RECORDED)


def measured(monkeypatch, tmp_path, *arguments):
    """Return the exit status of the script, and the file that it wrote."""
    table = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["measure_gpu.py", "--table", str(table), *arguments])
    return MEASURE["main"](), table


@pytest.mark.parametrize(
    ("device", "fix"),
    [
        pytest.param(
            "cuda",
            "a machine where torch sees a GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
        ),
        ("meta", "cpu, cuda or cuda:N"),
        ("cuda:99", "cpu, or a"),
    ],
)
def test_without_the_device_nothing_is_written(device, fix, monkeypatch, tmp_path, capsys):
    status, table = measured(monkeypatch, tmp_path, "--device", device)
    assert status == 1
    assert fix in capsys.readouterr().err
    assert not table.exists()


def test_a_run_on_the_cpu_takes_the_same_way(monkeypatch, tmp_path):
    """With three of the checks, in this process, of which one is made to fail."""

    def some(names, device):
        assert device == "cpu"
        return [case for case in cases(names, device) if case.check in CHECKS]

    def run(check, subject):
        if (check, subject.precision) == ("resume", "bf16"):
            raise AssertionError("planted\nmore")

    monkeypatch.setitem(MAIN, "cases", some)
    monkeypatch.setitem(MAIN, "run", run)
    monkeypatch.setitem(MAIN, "apart", MEASURE["kit"])
    monkeypatch.setitem(MAIN, "step_uncompiled", lambda: None)
    status, table = measured(monkeypatch, tmp_path, "--device", "cpu", "sgd")
    assert status == 0
    found = json.loads(table.read_text())
    assert found["bench"] == {}
    assert found["driver"] is None
    assert list(found["kit"]) == ["sgd", "sgd_layerwise"]
    for cells in found["kit"].values():
        assert cells["fp32"] == {"kept": 2, "others": {}}
        assert cells["bf16"] == {"kept": 1, "others": {"resume": "broken: planted"}}
        assert cells["fp16"]["others"] == {"refused": "refused"}
    assert "| `sgd` | 2 | **1, 1 broken** | refused | 1 |" in GENERATE["page"](found)
