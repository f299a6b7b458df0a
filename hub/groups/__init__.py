"""Sort parameters and modules: kinds of modules, low-rank targets, parameter groups."""
