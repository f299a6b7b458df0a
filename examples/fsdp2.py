"""Train a small Llama on Python's documentation, sharded by FSDP2, with any optimizer of hub.

    torchrun --nproc-per-node 2 examples/fsdp2.py --optim galore_adamw --optim-args "rank=16"

It writes a checkpoint every few steps. The same command continues from the last one, on any number
of processes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

import hub

LENGTH = 128  # bytes of a sequence; each byte is a token
BATCH = 12  # sequences of a step; a multiple of the number of processes
TEXT = torch.frombuffer(
    bytearray("\n\n".join(topics[name] for name in sorted(topics)), "utf-8"), dtype=torch.uint8
)
TRAINING, HELD_OUT = TEXT[:-50_000], TEXT[-50_000:]


def main() -> None:
    args = arguments()
    dist.init_process_group()
    device = own_device()
    model = sharded_llama(device)
    optimizer = hub.build(
        args.optim,
        model,
        lr=args.lr,
        optim_args=args.optim_args,
        target_modules="all-linear" if is_low_rank(args.optim) else None,
    )
    step = resume(args.checkpoints, model, optimizer)
    while step < args.steps:
        batch = own_part(step).to(device)
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % args.every == 0 or step == args.steps:
            save(args.checkpoints / f"step-{step}", step, model, optimizer)
            report(step, held_out_loss(model, device))
    dist.destroy_process_group()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--optim", default="adamw_torch", help="a name from `hub list`")
    parser.add_argument("--optim-args", help="its arguments, as key=value pairs between commas")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    return parser.parse_args()


def own_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", dist.get_node_local_rank())
    torch.cuda.set_device(device)
    return device


def sharded_llama(device: torch.device) -> LlamaForCausalLM:
    """Return 0.9 million parameters, the same for every number of processes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "max_position_embeddings": LENGTH}
    layers = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, **sizes, **layers)).to(device)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


def is_low_rank(name: str) -> bool:
    """Whether an optimizer projects the gradients of linear layers, and asks which."""
    return "low_rank" in hub.describe(name).traits


def own_part(step: int) -> torch.Tensor:
    """Return this process's sequences of a step's batch, which every process draws alike."""
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(len(TRAINING) - LENGTH, (BATCH,), generator=generator)
    own = starts[dist.get_rank() :: dist.get_world_size()]
    return torch.stack([TRAINING[start : start + LENGTH] for start in own]).long()


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, device: torch.device) -> float:
    """Return the mean loss on text that is never trained on; every process computes all of it."""
    model.eval()  # optimizers with other weights for evaluation switch here
    windows = HELD_OUT.long().unfold(0, LENGTH, len(HELD_OUT) // 16).to(device)
    loss: float = model(input_ids=windows, labels=windows).loss.item()
    model.train()
    return loss


def report(step: int, loss: float) -> None:
    if dist.get_rank() == 0:
        print(f"step {step}: held-out loss {loss:.6f}", flush=True)


def save(folder: Path, step: int, model: LlamaForCausalLM, optimizer: Any) -> None:
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state, "step": step}, checkpoint_id=folder)


def resume(checkpoints: Path, model: LlamaForCausalLM, optimizer: Any) -> int:
    """Load the last complete checkpoint, if there is one; return how many steps were taken."""
    complete = [path.parent for path in checkpoints.glob("step-*/.metadata")]  # written last
    if not complete:
        return 0
    last = max(complete, key=lambda folder: int(folder.name.removeprefix("step-")))
    weights, state = get_state_dict(model, optimizer)
    saved: dict[str, Any] = {"model": weights, "optimizer": state, "step": 0}
    dcp.load(saved, checkpoint_id=last)
    set_state_dict(
        model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"]
    )
    step: int = saved["step"]
    return step


if __name__ == "__main__":
    main()
