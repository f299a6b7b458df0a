"""Ray Train's loop (2.60, `ray.train.torch`), which is the user's own.

`prepare_model` moves the model to its device and wraps it in DDP; `prepare_data_loader` splits the
data. A checkpoint is a folder that a worker fills. Ray starts a cluster for minutes, so the test
has a process group of one, and what the two functions do.
"""

import itertools
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers.problem import (
    BATCH,
    LR,
    STEPS,
    arguments,
    batch,
    difference,
    make_model,
    plain,
    rows,
    weights_of,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import hub


@pytest.fixture(autouse=True)
def _process_group():
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def train_loop_per_worker(config):
    """What docs/trainers.md shows, with checkpoints."""
    model = DistributedDataParallel(make_model().train())
    optimizer = hub.build(config["optim"], model, lr=LR, **arguments(config["optim"]))
    start, folder = 0, Path(config["folder"])
    if config["resume"]:
        saved = torch.load(folder / "checkpoint.pt", weights_only=True)
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    loader = DataLoader(rows(STEPS * BATCH), batch_size=BATCH, collate_fn=batch)
    for step, inputs in itertools.islice(enumerate(loader), start, config["stop"]):
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        saved = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**saved, "step": step + 1}, folder / "checkpoint.pt")
    return weights_of(model.module)


@pytest.mark.parametrize("name", ["adamw_torch", "stable_adamw", "adafactor", "adamw_8bit"])
def test_workers_train_and_continue(name, tmp_path):
    config = {"optim": name, "folder": str(tmp_path), "resume": False}
    train_loop_per_worker({**config, "stop": 3})
    trained = train_loop_per_worker({**config, "stop": STEPS, "resume": True})
    assert difference(trained, plain(name, schedule="constant").weights) == 0


def test_layerwise_forms_build_before_the_model_is_prepared(tmp_path):
    config = {"optim": "lomo", "folder": str(tmp_path), "resume": False, "stop": 1}
    with pytest.raises(hub.UnsupportedError, match="DDP wrapped the model before"):
        train_loop_per_worker(config)
