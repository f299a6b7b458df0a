"""A generator and a discriminator, and the loop that everybody writes around them."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import hub
from hub.testing.comparing import assert_same

ROUNDS = 4


class Gan:
    """The loop that everybody writes; `name` steps the discriminator."""

    def __init__(self, name, *, eager=False, **arguments):
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
        self.of_g = hub.build("adamw_torch", self.generator, lr=1e-2)
        self.of_d = hub.build(name, self.discriminator, lr=1e-2, **arguments)
        if eager:
            hub.detach(self.of_d)

    def judge(self, points, truth):
        logits = self.discriminator(points)
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))

    def fake(self):
        return self.generator(torch.randn(8, 4))

    def d(self):
        real = torch.randn(8, 2) + 3
        (self.judge(real, 1.0) + self.judge(self.fake().detach(), 0.0)).backward()

    def d_in_two_passes(self):
        self.judge(torch.randn(8, 2) + 3, 1.0).backward()
        self.judge(self.fake().detach(), 0.0).backward()

    def g(self):
        self.judge(self.fake(), 1.0).backward()

    def g_frozen(self):
        self.discriminator.requires_grad_(False)
        self.g()
        self.discriminator.requires_grad_(True)

    def g_of_its_inputs(self):
        self.judge(self.fake(), 1.0).backward(inputs=list(self.generator.parameters()))

    def clear_optimizer(self, optimizer):
        optimizer.zero_grad()

    def clear_model(self, optimizer):
        (self.discriminator if optimizer is self.of_d else self.generator).zero_grad()

    def train(self, order, *, d="d", g="g", clear="clear_optimizer", clears_first=True):
        torch.manual_seed(1)
        turns = {"d": (self.of_d, getattr(self, d)), "g": (self.of_g, getattr(self, g))}
        for _ in range(ROUNDS):
            for turn in order:
                optimizer, backward = turns[turn]
                if clears_first:
                    getattr(self, clear)(optimizer)
                backward()
                optimizer.step()
                if not clears_first:
                    getattr(self, clear)(optimizer)
        return self


def assert_equal(gan, other):
    assert_same(gan.discriminator, other.discriminator)
    assert_same(gan.generator, other.generator)
