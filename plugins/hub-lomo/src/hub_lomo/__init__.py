"""LOMO and AdaLomo for hub: `hub.build("lomo", model)`."""
