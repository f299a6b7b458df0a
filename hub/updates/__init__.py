"""Helpers for plugins whose optimizers hub makes faster than their packages' code.

`stacking` computes on many small tensors of one shape as one tensor. `same_shapes` steps parameters
of equal shape together. `low_rank` finds the bases of low-rank projections, and `findings` says
what they cost. `kernel` compiles an update into one kernel, and `compiling` says where that fails.
"""
