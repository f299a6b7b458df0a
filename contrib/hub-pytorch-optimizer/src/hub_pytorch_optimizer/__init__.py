"""The optimizers of pytorch_optimizer for hub: `hub.build("po_adopt", model)`."""
