"""Build an optimizer from a plan, and optimizer and schedule from a trainer's arguments."""
