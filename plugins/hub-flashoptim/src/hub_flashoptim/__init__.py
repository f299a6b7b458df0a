"""FlashOptim's optimizers for hub: `hub.build("flash_adamw", model)`."""
