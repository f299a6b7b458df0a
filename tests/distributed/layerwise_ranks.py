"""Ranks that step in the backward pass.

`python layerwise_ranks.py RANKS STORE CASE...`: a case is a function of one of the modules imported
here. Ranks 0 and 1 have a half of each batch, and all others contribute zeros, so that sums of
gradients round as in one process.
"""

import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.fsdp

import hub.testing.subject  # noqa: F401 - once, for all ranks


def run(rank, ranks, store, *cases):
    """Be one of the ranks, in this process."""
    sys.argv[1:] = [str(rank), str(ranks)]
    import layerwise_ddp
    import layerwise_fsdp
    import layerwise_order

    found = vars(layerwise_ddp) | vars(layerwise_fsdp) | vars(layerwise_order)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks)
    for case in cases:
        found[case]()
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do


if __name__ == "__main__":
    processes = []
    for number in range(int(sys.argv[1])):
        process = os.fork()
        if not process:
            run(number, int(sys.argv[1]), *sys.argv[2:])
        processes.append(process)
    sys.exit(any(os.waitpid(process, 0)[1] for process in processes))
