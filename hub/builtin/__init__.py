"""torch's own optimizers and the schedules: plugins like any other, in the core distribution."""
