"""From a plan to an optimizer, and from a trainer's arguments to an optimizer and a schedule."""
