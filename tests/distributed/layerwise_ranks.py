"""One of several ranks that step in the backward pass.

`python layerwise_ranks.py RANK RANKS STORE CASE...`: a case is a function of one of the modules
imported here. Ranks 0 and 1 have a half of each batch, and all others contribute zeros, so that
sums of gradients round as in one process.
"""

import os
import sys

import layerwise_ddp
import layerwise_fsdp
import layerwise_order
import torch
import torch.distributed as dist
from layerwise_common import RANK, RANKS

CASES = vars(layerwise_ddp) | vars(layerwise_fsdp) | vars(layerwise_order)

if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(sys.argv[3], RANKS)
    dist.init_process_group("gloo", store=store, rank=RANK, world_size=RANKS)
    for case in sys.argv[4:]:
        CASES[case]()
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do
