"""From a name and a model to a plan: everything that `hub.build` will do."""
