"""What the plan says of parameters that FSDP2 or tensor parallelism shards."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers.split import as_split
from torch import nn
from torch.distributed.tensor import Replicate, Shard

import hub
from hub.running.sharded import refusals
from hub.running.sharded.owners import rows_by_rank


def net():
    return nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 8))


def plan(name, model, **arguments):
    low_rank = {"target_modules": "all-linear"} if name.startswith(("galore", "apollo")) else {}
    return hub.plan(name, model, **low_rank, **arguments)


def places(planned):
    return {p.name: p.place for group in planned.groups for p in group.parameters}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("adamw_torch", {"native"}),
        ("schedule_free_sgd", {"native"}),
        ("lion_32bit", {"rows"}),
        ("adafactor", {"whole"}),
        ("galore_adamw", {"whole"}),
    ],
)
def test_every_parameter_has_a_kind_and_a_whole_one_an_owner(name, kinds):
    planned = plan(name, as_split(net(), (4,)))
    found = places(planned)
    assert {place.kind for place in found.values()} == kinds
    for place in found.values():
        assert place.owner in (range(4) if place.kind == "whole" else [None])
    assert hub.Plan.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned
    assert f"{next(iter(kinds))} ×" in str(planned)


def test_blocks_of_quantized_state_decide_row_by_row():
    """min_8bit_size is the whole parameter's; 8 rows of 32 are one block of 256 for each rank."""
    model = nn.ModuleDict(
        {
            "aligned": nn.Linear(256, 8, bias=False),
            "unaligned": nn.Linear(32, 64, bias=False),
            "uneven": nn.Linear(256, 9, bias=False),
            "small": nn.Linear(4, 8, bias=False),
        }
    )
    found = places(plan("lion_8bit", as_split(model, (4,)), min_8bit_size=512))
    kinds = {name.removesuffix(".weight"): place.kind for name, place in found.items()}
    assert kinds == {"aligned": "rows", "unaligned": "whole", "uneven": "whole", "small": "rows"}


def test_replicas_share_the_owners_of_their_rows():
    plain, replicated = (places(plan("adafactor", as_split(net(), m))) for m in [(4,), (2, 4)])
    assert plain == replicated


def test_the_note_counts_what_arrives():
    """Of 2 ranks, the owner receives half of weight and gradient, the other its half of the new."""
    planned = plan("adafactor", as_split(nn.Linear(16, 64, bias=False), (2,)))
    (note,) = (finding.what for finding in planned.findings if "sharded over" in finding.what)
    half = 16 * 64 * 4 / 2 / 1024
    assert f"{(2 * half + half) / 2:.1f} KiB on average" in note
    assert f"{2 * half:.1f} KiB at most" in note
    assert "2.00 times the mean" in note


def test_a_plan_of_a_plain_model_says_nothing_of_ranks():
    planned = plan("adafactor", net())
    assert set(places(planned).values()) == {None}
    assert "stepped" not in str(planned)
    assert "ranks" not in str(planned)


ROWS, COLUMNS = Shard(0), Shard(1)
MESHES = [
    ("columns", (4,), [COLUMNS]),
    ("on two dimensions", (2, 2), [ROWS, COLUMNS]),
    ("rows twice", (2, 2), [ROWS, ROWS]),
    ("replicated", (4,), [Replicate()]),
]


@pytest.mark.parametrize(
    ("shape", "placements"), [m[1:] for m in MESHES], ids=[m[0] for m in MESHES]
)
def test_other_placements_than_rows_are_refused_for_what_needs_rows(shape, placements):
    model = as_split(nn.Linear(32, 32, bias=False), shape, placements)
    for name in ("adafactor", "galore_adamw", "adamw_8bit", "lion_32bit"):
        refusal = plan(name, model).refusal
        assert isinstance(refusal, hub.UnsupportedError), name
        assert "placements" in refusal.what
        assert refusal.where == "weight"
    for name in ("adamw_torch", "grokadamw"):
        planned = plan(name, model)
        assert not planned.refused, name
        assert places(planned) == {"weight": None}


def test_a_class_that_declares_no_sharding_is_refused(monkeypatch):
    spec = hub.describe("adafactor")
    monkeypatch.setattr(refusals, "sharding_of", lambda _: None)
    with pytest.raises(hub.UnsupportedError, match="does not say how") as refused:
        hub.build(spec.name, as_split(net(), (4,)))
    assert refused.value.where == "0.weight"


def test_offloaded_shards_need_a_group_that_moves_them(monkeypatch):
    model = as_split(net(), (4,))
    mesh = next(model.parameters()).device_mesh
    monkeypatch.setattr(type(mesh), "device_type", "cuda")
    devices = [torch.device("cuda")]
    group = SimpleNamespace(_device_types=devices)
    monkeypatch.setattr(type(mesh), "get_group", lambda *_: group)
    assert "CPU offload" in plan("adafactor", model).refusal.what
    assert not plan("lion_32bit", model).refused
    devices.append(torch.device("cpu"))
    assert not plan("adafactor", model).refused


def test_a_class_without_a_plugin_steps_dtensors_itself():
    planned = hub.plan((torch.optim.Adam, {"lr": 0.1}), as_split(net(), (4,)))
    assert not planned.refused
    assert {place.kind for place in places(planned).values()} == {"native"}


@pytest.mark.parametrize(("rows", "ranks"), [(1, 2), (5, 4), (17, 4), (3, 8), (16, 4)])
def test_rows_are_those_of_torch(rows, ranks):
    chunks = [len(chunk) for chunk in torch.arange(rows).chunk(ranks)]
    assert rows_by_rank(rows, ranks) == chunks + [0] * (ranks - len(chunks))
