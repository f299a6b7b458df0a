"""Stepping inside the backward pass: one engine for layerwise forms and for LOMO.

Each parameter is updated as soon as its gradient is complete, and the gradient is freed, so that
all gradients are never there together. The optimizer stays the one it is: its groups, its state
and its class; `step()` updates what is left and ends the step.

`engine` receives gradients; `single` updates one parameter, `clipping` knows norms, and `spent`
stands where a gradient was. `form` gives all of it to an optimizer.
"""
