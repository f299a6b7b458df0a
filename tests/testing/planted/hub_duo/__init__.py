"""An optimizer with two rules for hub: the plugin that bugs are planted in."""
