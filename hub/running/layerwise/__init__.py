"""Stepping inside the backward pass ("gradient release"): one engine for layerwise forms and LOMO.

Each parameter is updated as soon as its gradient is complete, and the gradient is freed, so the
full set of gradients is never in memory. The optimizer keeps its identity, groups and state;
`step()` updates the remaining parameters and ends the step.

`engine` receives gradients and runs the step; `self_ending` is the engine for LOMO, whose steps end
without `step()`. `hub.running.stand_ins` updates one parameter, `clipping` measures and clips, and
`released` is the placeholder for a freed gradient. `subclass` attaches all of it to an optimizer.
"""
