"""Optimizers with separate weights for training and evaluation: ScheduleFree.

Such an optimizer has `train()` and `eval()`, which a trainer that does not know it never calls. So
the weights follow the model's mode: `model.eval()` puts the evaluation weights in place and
`model.train()` the training weights, immediately and for the whole model. State dicts of the model
and of the optimizer hold the evaluation weights, ready to evaluate and export, and saving does not
change the weights in place.

Upstream computes one kind of weights from the other, which rounds. hub keeps the training weights
while the evaluation weights are in place, and saves them with the optimizer, so that evaluating and
checkpointing leave the training unchanged to the last bit.

`weights` computes and keeps the two kinds of weights, `follower` tracks the model's mode, `hooks`
are what it places on modules, and `attach` connects a follower to an optimizer.
"""
