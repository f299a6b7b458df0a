"""APOLLO for hub: `hub.build("apollo_adamw", model, target_modules="all-linear")`."""
