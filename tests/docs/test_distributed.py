"""docs/distributed.md says what is measured and computed, and owners are even."""

import json
import re
import subprocess
import sys

import pytest
from helpers.fresh import run_fresh

import hub
from hub.names.registry import default_registry
from hub.testing.matrix import forms
from tests.docs.conftest import DOCS, blocks, generator

PLAN = generator("paper_plan")
PAGE = (DOCS / "distributed.md").read_text()


def test_the_page_has_the_present_figures():
    command = [sys.executable, DOCS / "generate_distributed.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_name_is_in_one_row():
    table = re.search(r"<!-- generated: support -->\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    names = re.findall(r"`(\w+)`", table)
    assert sorted(names) == sorted(forms(hub.list_optimizers(), default_registry()))


@pytest.mark.parametrize("llama", PLAN["MODELS"], ids=lambda llama: llama.name)
@pytest.mark.parametrize("ranks", [8, 64])
@pytest.mark.parametrize("low_rank", [True, False], ids=["decomposition", "elements"])
def test_the_critical_path_is_near_the_shortest(llama, ranks, low_rank):
    """Near the mean, or the largest matrix, which nothing but splitting it makes shorter."""
    found = PLAN["balance"](llama.linears(), ranks, low_rank=low_rank)
    assert found.critical <= 1.15 * found.bound
    assert found.idle == 0


def test_owners_receive_a_part_of_what_others_do():
    for llama in PLAN["MODELS"]:
        for ranks in PLAN["RANKS"]:
            received = PLAN["traffic"](llama, ranks)
            assert received["owners"] * ranks == pytest.approx(received["FSDP2"], rel=1e-3)
            assert received["busiest"] < received["gathering"]


PROGRAMS = """
import json, os, sys, tempfile
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
import hub

os.environ["GLOO_SOCKET_IFNAME"] = "lo"
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
folder = tempfile.mkdtemp()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(128, 128) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


wrapped, sharded, planned, estimated, saved = json.loads(sys.argv[1])
for programs in ([wrapped], [estimated], [sharded, planned, saved]):
    model = Net()
    for program in programs:
        exec(program)
    if "optimizer" in globals():
        model(torch.ones(2, 128)).sum().backward()
        optimizer.step()
assert os.listdir(folder)
assert plan.groups[0].parameters[0].place.kind == "whole"
sys.stdout.flush()
os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do
"""


def test_what_is_shown_runs():
    """The programs of distributed.md, on one rank."""
    run_fresh(PROGRAMS, json.dumps(blocks(PAGE)))
