"""Step parameters that FSDP2 shards, so that the result equals one process.

Every parameter has a kind. A native one is stepped as the DTensor that it is. Of a parameter whose
rows are enough, each rank steps its own. A whole one is stepped on one rank, its owner, which
gets all rows of weight and gradient, steps them as a plain tensor, and sends the new rows back.
"""
