"""AdamW with 4-bit and 8-bit state for hub: `hub.build("adamw_torch_8bit", model)`."""
