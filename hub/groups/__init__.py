"""Which parameters and modules belong together: kinds of modules, targets, parameter groups."""
