"""Several optimizers of one model as one `torch.optim.Optimizer`."""
