"""Training runs that may be killed at any moment; `test_kill.py` starts this and does it.

Reads one run a line from standard input, as JSON, and writes lines of JSON: the process id and the
number of steps done as a run proceeds, and its exit code when it ends. The model, the optimizer and
the schedule of a run exist only in a process of its own, forked from this one, which has imported
what takes seconds to import and has never built or trained anything.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

import torch

import hub
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.thread_count import thread_count

LR = 1e-2
WARMUP = 5


def train(
    name: str,
    folder: str,
    steps: int,
    every: int,
    arguments: dict[str, object],
    schedule: str,
    forget: list[str],
) -> None:
    """Train to the last step, from the newest checkpoint if there is one; write the weights.

    Args:
        name: Of the optimizer.
        folder: Holds the checkpoint, and in the end the weights.
        steps: Of the whole run.
        every: Number of steps from one checkpoint to the next.
        arguments: Of `hub.build`.
        schedule: Name of the learning-rate schedule.
        forget: What is not restored, of "optimizer" and "schedule".
    """
    model = make_model()
    optimizer = hub.build(name, model, lr=LR, **arguments)
    following = hub.build_scheduler(
        schedule, optimizer, num_warmup_steps=WARMUP, num_training_steps=steps
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": following}
    file = Path(folder) / "checkpoint.pt"
    done = 0
    if file.exists():
        saved = torch.load(file, weights_only=True)
        done = saved["done"]
        for key, part in parts.items():
            if key not in forget:
                part.load_state_dict(saved[key])
    tell(pid=os.getpid(), done=done)
    while done < steps:
        model.take_detour = done % 2 == 0
        loss_of(model, batch(done)).backward()
        optimizer.step()
        optimizer.zero_grad()
        following.step()
        done += 1
        if done % every == 0:
            save({"done": done, **{key: part.state_dict() for key, part in parts.items()}}, file)
        tell(pid=os.getpid(), done=done)
    save(dict(model.named_parameters()), Path(folder) / "weights.pt")


def save(data: dict[str, object], file: Path) -> None:
    """Write a file such that whoever reads it finds the old one or the new one, whole.

    A kill loses nothing that was written: only a crash of the machine would need `fsync`.
    """
    temporary = file.with_suffix(".tmp")
    torch.save(data, temporary)
    temporary.replace(file)


def tell(**facts: int) -> None:
    """Write one line, in one piece."""
    os.write(sys.stdout.fileno(), (json.dumps(facts) + "\n").encode())


def main() -> None:
    """Serve runs, one after the other."""
    torch.set_num_threads(thread_count())
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        run = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train(**run)
                code = 0
            except BaseException:  # noqa: BLE001 - never to return into the loop
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        tell(ended=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
