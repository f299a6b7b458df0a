"""Make a plan from a name and a model: everything that `hub.build` will do."""
