"""One of two ranks that train with every trainer: `torchrun --nproc-per-node 2 ranks.py FOLDER`.

Each name trains as by hand in one process that accumulates the ranks' parts of the batch, which
rounds as two ranks do.
"""

import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import load_fsdp_optimizer, save_fsdp_optimizer
from helpers.lit import Module, by_hand, described
from helpers.lit import trainer as lit_trainer
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
    schedule_of,
    targets,
    weights_of,
)
from helpers.sft import config, sft
from helpers.trainer import WEIGHT_DECAY, by_name, logged, settings, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from trl import SFTConfig

import hub
from hub.testing.thread_count import thread_count

DECAY = {"weight_decay": WEIGHT_DECAY}
RANKS = 2
SAVED_AT = 3
FEW = ("adamw_torch", "galore_adamw", "schedule_free_adamw", "adamw_8bit")
MANY = (*FEW, "adafactor", "apollo_adamw", "stable_adamw", "grokadamw")
OFF_ON_DTENSORS = {"grokadamw": 5e-6}
"""It clips by the norm of a gradient, which torch adds up from the parts of a DTensor."""


def check_transformers(name, folder):
    """Train, evaluate, save, and continue from the checkpoint."""
    config = settings(
        folder,
        lr_scheduler_type=schedule_of(name),
        save_strategy="steps",
        save_steps=3,
        eval_strategy="steps",
        eval_steps=3,
        ddp_find_unused_parameters=False,
    )
    assert config.world_size == RANKS
    model = make_model()
    running = trainer(model, config, name)
    running.train()
    reference = plain(name, accumulation=RANKS, evaluate_at=(3, STEPS), defaults=DECAY)
    check_equal(model, reference.weights, name)
    assert logged(running, "learning_rate") == reference.rates, name
    # The Trainer rounds the mean over the ranks in another order.
    for loss, expected in zip(logged(running, "eval_loss"), reference.evaluations, strict=True):
        assert abs(loss - expected) < 1e-6, name

    fresh = make_model()
    running = trainer(fresh, config, name)
    running.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    check_equal(fresh, reference.weights, name)


def check_trl(name, folder):
    """Leave the weights to the test, which trains in one process: TRL has a loss of its own."""
    given = config(SFTConfig, name, folder, ddp_find_unused_parameters=False)
    model = make_model()
    sft(model, given, optimizer_cls_and_kwargs=by_name(name)).train()
    if dist.get_rank() == 0:
        torch.save(weights_of(model), Path(sys.argv[1]) / f"{name}.pt")


def check_lightning(name, folder, strategy=lambda: "ddp", module_class=Module):
    """Train, save in the middle, and continue from there."""
    keep = ModelCheckpoint(folder, every_n_train_steps=SAVED_AT, save_top_k=-1)
    module, fresh = (module_class(described(name)) for _ in range(2))
    fit_ranks(module, folder, strategy(), enable_checkpointing=True, callbacks=[keep])
    expected = by_hand(name, accumulation=RANKS)
    assert module.rates == expected.rates, name
    check_equal(module.model, expected.weights, name)

    (saved,) = folder.glob(f"*step={SAVED_AT}.ckpt")
    fit_ranks(fresh, folder, strategy(), start=SAVED_AT, ckpt_path=saved)
    check_equal(fresh.model, whole_weights(module.model), name)


def fit_ranks(module, folder, strategy, *, start=0, ckpt_path=None, **settings):
    """Train on this rank's batches, from a step on, as `helpers.lit.fit` does in one process."""
    size = BATCH * RANKS
    samples = rows((start + STEPS) * size)[start * size :]
    own = [samples[i] for i in range(len(samples)) if i // BATCH % RANKS == dist.get_rank()]
    data = DataLoader(own, batch_size=BATCH, collate_fn=batch)
    running = lit_trainer(
        folder, strategy=strategy, devices=RANKS, use_distributed_sampler=False, **settings
    )
    running.fit(module, data, ckpt_path=ckpt_path, weights_only=True)


def check_equal(model, expected, name):
    """Check weights, to the last bit unless DTensor's operations add up in another order."""
    gap = difference(whole_weights(model), expected)
    is_sharded = any(hasattr(parameter, "device_mesh") for parameter in model.parameters())
    assert gap <= (OFF_ON_DTENSORS.get(name, 0) if is_sharded else 0), (name, gap)


def whole_weights(model):
    return {name: whole(p) for name, p in model.state_dict().items()}


def whole(tensor):
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


class Sharded(Module):
    """Shards itself where Lightning asks for it."""

    def configure_model(self):
        for layer in self.model.model.layers:
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])
        fully_shard(self.model, mesh=self.device_mesh["data_parallel"])


def check_lightning_layerwise(name, folder):
    """Lightning wraps the model before hub builds, so DDP has taken the gradients already."""
    module = Module(described(name))
    with pytest.raises(hub.UnsupportedError, match="DDP wrapped the model before"):
        fit_ranks(module, folder, "ddp")
    assert difference(weights_of(module.model), weights_of(make_model())) == 0, name


def check_lightning_fsdp2(name, folder):
    strategy = partial(ModelParallelStrategy, data_parallel_size=RANKS, tensor_parallel_size=1)
    check_lightning(name, folder, strategy, Sharded)


def check_accelerate_fsdp2(name, folder):
    """Build, have Accelerate shard, train, save, load on the way that the Trainer takes."""
    model, optimizer, accelerator = prepared(name)
    train(model, optimizer, range(SAVED_AT))
    assert name != "adamw_torch" or optimizer.param_groups[0]["foreach"] is False
    plugin = accelerator.state.fsdp_plugin
    save_fsdp_optimizer(plugin, accelerator, optimizer, model, folder)
    half = get_model_state_dict(model)
    half = {key: value.clone() for key, value in half.items()}
    train(model, optimizer, range(SAVED_AT, STEPS))
    expected = plain(name, accumulation=RANKS, schedule="constant").weights
    check_equal(model, expected, name)

    fresh, continued, accelerator = prepared(name)
    set_model_state_dict(fresh, half)
    load_fsdp_optimizer(plugin, accelerator, continued, fresh, folder)
    train(fresh, continued, range(SAVED_AT, STEPS))
    check_equal(fresh, whole_weights(model), name)


def prepared(name):
    """Return what Accelerate makes of a model and its optimizer, built before it shards.

    Accelerate 1.15 ignores FSDP on CPU, so `prepare` itself would take DDP.
    """
    accelerator = Accelerator(cpu=True)
    accelerator.state._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        state_dict_type="SHARDED_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )
    model = make_model()
    optimizer = hub.build(name, model, lr=LR, target_modules=targets(name), **arguments(name))
    return *accelerator._prepare_fsdp2(model, optimizer), accelerator


def train(model, optimizer, steps):
    samples = rows(STEPS * BATCH * RANKS)
    for step in steps:
        first = (step * RANKS + dist.get_rank()) * BATCH
        model(**batch(samples[first : first + BATCH])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


CASES = {
    check_transformers: (*MANY, "lomo", "galore_adamw_layerwise"),
    check_trl: FEW,
    check_lightning: MANY,
    check_lightning_layerwise: ("adamw_torch_layerwise",),
    check_lightning_fsdp2: (*FEW, "lomo", "galore_adamw_layerwise"),
    check_accelerate_fsdp2: (*MANY, "lomo", "galore_adamw_layerwise"),
}


def main():
    warnings.simplefilter("ignore")  # the trainers say much
    warnings.simplefilter("error", hub.HubWarning)
    torch.set_num_threads(thread_count())
    dist.init_process_group("gloo")
    for check, names in CASES.items():
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                shared = [folder]
                dist.broadcast_object_list(shared)
                check(name, Path(shared[0]))
                dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
