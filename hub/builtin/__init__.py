"""torch's optimizers, Adafactor and the schedules: plugins that ship with hub itself."""
