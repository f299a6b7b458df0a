"""bitsandbytes' optimizers for hub: `hub.build("adamw_8bit", model)`."""
