"""Optimizers with other weights for evaluation than for training: ScheduleFree.

Such an optimizer has `train()` and `eval()`, which nobody calls in a trainer that does not know it.
So the weights follow the model's own mode: `model.eval()` puts the evaluation weights in place,
`model.train()` the training weights, at once and whichever part of the model is called next. State
dicts, of the model as of the optimizer, hold the evaluation weights, as one wants to evaluate and
export them, and leave those in place alone.

Upstream computes one kind of weights from the other, and rounds. Here the training weights are kept
while the others are in place, and saved with the optimizer, so that neither evaluations nor
checkpoints leave a trace in the training.

`weights` computes and keeps the two kinds of weights of an optimizer, `follower` notices the
model's mode, `hooks` are what it places on modules.
"""
