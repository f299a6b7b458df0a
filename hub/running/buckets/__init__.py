"""Step parameters in buckets: bf16 weights as fp32 copies, state that is on the host otherwise.

`step` goes through the buckets, `rounding` makes the copies and rounds them, and `offload` moves
the state, to another `memory`. `stepping` says how an optimizer is stepped, and `loading` loads
state for that.
"""
