"""optimi's StableAdamW for hub: `hub.build("stable_adamw", model)`."""
