"""Schedule-Free optimizers for hub: `hub.build("schedule_free_adamw", model)`."""
