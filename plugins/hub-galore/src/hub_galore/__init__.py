"""GaLore optimizers for hub: `hub.build("galore_adamw", model, target_modules="all-linear")`."""
