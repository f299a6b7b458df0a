"""However a model is called, evaluation sees the evaluation weights and training the others.

The evaluation weights are held to what schedulefree's own `eval()` makes of a model that was
trained by hand, and training to a run without any evaluation; both bit for bit.
"""

import copy
import io

import pytest
import schedulefree
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import hub
from hub.testing.comparing import assert_same

STEPS = 4


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.scale = nn.Parameter(torch.ones(8))
        self.norm = nn.BatchNorm1d(8)

    def forward(self, tokens):
        return self.norm((self.embed(tokens) * self.scale).mean(1))


class Net(nn.Module):
    """A model with parts, methods, a parameter of its own and normalization that may be frozen."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(8, 12)
        self.shift = nn.Parameter(torch.zeros(12))
        self.encoder.norm.eval()

    def train(self, mode=True):
        super().train(mode)
        self.encoder.norm.eval()
        return self

    def encode(self, tokens):
        return self.encoder(tokens)

    def loss(self, tokens):
        return nn.functional.cross_entropy(self(tokens), tokens[:, 0])

    def forward(self, tokens):
        return self.head(torch.tanh(self.encoder(tokens))) + self.shift


def make():
    torch.manual_seed(0)
    return Net()


def batch(step):
    return torch.randint(0, 12, (6, 5), generator=torch.Generator().manual_seed(step))


def steps(model, optimizer, numbers, call=Net.loss):
    for step in numbers:
        call(model, batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()


def by_hand():
    """Return a model trained by upstream's class, and its evaluation weights in a copy of it."""
    model = make()
    pairs = [(p.ndim > 1, p) for p in model.parameters()]
    optimizer = schedulefree.AdamWScheduleFree(
        [
            {"params": [p for is_matrix, p in pairs if is_matrix], "weight_decay": 0.1},
            {"params": [p for is_matrix, p in pairs if not is_matrix], "weight_decay": 0.0},
        ],
        lr=0.05,
    )
    optimizer.train()
    steps(model, optimizer, range(STEPS))
    evaluated = make()
    trained = copy.deepcopy(model.state_dict())
    optimizer.eval()
    evaluated.load_state_dict(model.state_dict())
    model.load_state_dict(trained)  # the way back rounds in upstream's class
    for group in optimizer.param_groups:
        group["train_mode"] = True
    return model, optimizer, evaluated.eval()


def built(model=None, **arguments):
    model = make() if model is None else model
    return model, hub.build("schedule_free_adamw", model, lr=0.05, weight_decay=0.1, **arguments)


def through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def from_state_dict(state_dict):
    model = make()
    model.load_state_dict(state_dict)
    return model.eval()


def exported(model, tokens):
    program = torch.export.export(model, (tokens,))
    assert not any("lerp" in str(node.target) for node in program.graph.nodes)
    return program.module()(tokens)


def traced(model, tokens):
    program = torch.jit.trace(model, (tokens,))
    assert "lerp" not in str(program.inlined_graph)
    return program(tokens)


def replica(model):
    """Return what DataParallel makes of a model for one of several devices."""
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, twin in copies.items():
        for name, child in module._modules.items():
            twin._modules[name] = copies[child]
        for name, parameter in module._parameters.items():
            setattr(twin, name, None if parameter is None else parameter.detach().clone())
    return copies[model]


def parts_state(model):
    twin = make()
    twin.encoder.load_state_dict(model.encoder.state_dict())
    return twin.encoder.eval()


# How an evaluation may call a model that is in evaluation mode, and what it does by hand.
WAYS = {
    "root": lambda m, x: m(x),
    "method": lambda m, x: m.encode(x),
    "loss method": lambda m, x: m.loss(x),
    "submodule": lambda m, x: m.encoder(x),
    "parameter": lambda m, _: m.shift.clone(),
    "functional_call": lambda m, x: torch.func.functional_call(m, dict(m.named_parameters()), (x,)),
    "gradients of functional_call": lambda m, x: torch.func.grad(
        lambda p: torch.func.functional_call(m, p, (x,)).square().mean()
    )(dict(m.named_parameters()))["head.weight"],
    "compile": lambda m, x: torch.compile(m, backend="eager")(x),
    "compile fullgraph": lambda m, x: torch.compile(m, backend="eager", fullgraph=True)(x),
    "compile of a caller": lambda m, x: torch.compile(m.encode, backend="eager", fullgraph=True)(x),
    "compile aot": lambda m, x: torch.compile(m, backend="aot_eager", fullgraph=True)(x),
    "export": exported,
    "trace": traced,
    "DataParallel": lambda m, x: nn.DataParallel(m).eval()(x),
    "replica": lambda m, x: replica(m)(x),
    "deepcopy": lambda m, x: copy.deepcopy(m)(x),
    "torch.save": lambda m, x: through_a_file(m)(x),
    "state_dict": lambda m, x: from_state_dict(m.state_dict())(x),
    "state_dict of a part": lambda m, x: parts_state(m)(x),
    "EMA": lambda m, x: AveragedModel(m)(x),
    "wrapper": lambda m, x: nn.Sequential(m).eval()(x),
}


def set_flags(model, *, training):
    for module in model.modules():
        module.training = training and not isinstance(module, nn.BatchNorm1d)


@pytest.mark.parametrize("late", [False, True], ids=["eval", "flags"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_every_way_to_call_a_model_in_evaluation_mode(way, late):
    """By `eval()`, or by flags that are set as Lightning sets them and one forward pass since."""
    _, _, evaluated = by_hand()
    model, optimizer = built()
    steps(model, optimizer, range(STEPS))
    expected = WAYS[way](evaluated, batch(99))
    if late:
        set_flags(model, training=False)
        model.encoder(batch(98))
    else:
        model.eval()
    torch.testing.assert_close(WAYS[way](model, batch(99)), expected, rtol=0, atol=0)


def evaluate(model, _):
    model.eval()
    model(batch(99))
    model.train()


def evaluate_by_flags(model, _):
    """As Lightning does, which restores the modes so."""
    model.eval()
    model.encode(batch(99))
    set_flags(model, training=True)


def evaluate_pinned(model, optimizer):
    with hub.eval_mode(optimizer):
        model(batch(99))


def save(model, optimizer):
    through_a_file((model.state_dict(), optimizer.state_dict()))


def save_in_evaluation(model, optimizer):
    model.eval()
    save(model, optimizer)
    model.train()


def reload(model, optimizer):
    state, own = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    model.load_state_dict(state)
    optimizer.load_state_dict(own)


# What may happen between two micro-batches of one step.
INTERRUPTIONS = {
    "eval": evaluate,
    "flags": evaluate_by_flags,
    "eval_mode": evaluate_pinned,
    "save": save,
    "save in evaluation": save_in_evaluation,
    "save a part": lambda m, _: m.encoder.state_dict(),
    "keep_vars": lambda m, _: m.state_dict(keep_vars=True),
    "load the model": lambda m, _: m.load_state_dict(m.state_dict()),
    "load a part": lambda m, _: m.encoder.load_state_dict(m.encoder.state_dict()),
    "load both": reload,
    "EMA": lambda m, _: AveragedModel(m).update_parameters(m),
    "deepcopy": lambda m, _: copy.deepcopy(m).eval()(batch(99)),
}


def compiled(model):
    return torch.compile(model, backend="eager")


# How a training may call its model: what makes the call, and the call.
TRAININGS = {
    "root": (lambda m: m, lambda m, x: m(x)),
    "method": (lambda m: m, lambda m, x: m.head(m.encode(x))),
    "compiled": (compiled, lambda m, x: m(x)),
    "compiled, fullgraph": (
        lambda m: torch.compile(m, backend="eager", fullgraph=True),
        lambda m, x: m(x),
    ),
}


def trained(training, interrupt, *, built_first=True):
    make_call, call = TRAININGS[training]
    model = make()
    run = make_call(model)
    if not built_first:
        run(batch(97))  # what is compiled already has no hooks
    optimizer = built(model)[1]
    for step in range(2 * STEPS):
        for part in (0, 1):
            call(run, batch(2 * step + part)).square().mean().backward()
            interrupt(model, optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return model


CASES = [
    (training, interruption, built_first)
    for training in TRAININGS
    for interruption in INTERRUPTIONS
    for built_first in (True, False)
    if interruption != "flags" or "fullgraph" not in training
]


@pytest.mark.parametrize(("training", "interruption", "built_first"), CASES)
def test_nothing_leaves_a_trace_in_the_training(training, interruption, built_first):
    undisturbed = trained(training, lambda *_: None, built_first=built_first)
    disturbed = trained(training, INTERRUPTIONS[interruption], built_first=built_first)
    assert_same(disturbed, undisturbed)


@pytest.mark.parametrize("built_first", [True, False])
def test_flags_cannot_be_followed_inside_of_one_graph(built_first):
    torch._dynamo.reset()  # after eight models it leaves a hook out of its graphs
    model = make()
    run = torch.compile(model, backend="eager", fullgraph=True)
    if not built_first:
        run(batch(99))
    optimizer = built(model)[1]
    steps(model, optimizer, range(STEPS))
    run(batch(99))
    set_flags(model, training=False)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        run(batch(99))
    model.eval()
    assert torch.equal(run(batch(99)), model(batch(99)))


@pytest.mark.parametrize("record", [exported, traced])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flags_cannot_be_followed_while_a_graph_is_recorded(record):
    model, optimizer = built()
    steps(model, optimizer, range(STEPS))
    set_flags(model, training=False)
    with pytest.raises(Exception, match=r"call model\.eval\(\) before recording"):
        record(model, batch(99))


def test_nothing_of_it_is_in_a_graph():
    """Neither an operation nor a break, in either mode; and no graph more than there are modes."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph.graph)
        return graph.forward

    model, optimizer = built()
    run = torch.compile(model, backend=backend, fullgraph=True)
    for step in range(STEPS):
        run(batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        run(batch(99))
        model.train()
    plain = []
    torch.compile(
        make(), backend=lambda graph, _: plain.append(graph.graph) or graph.forward, fullgraph=True
    )(batch(0))
    assert len(graphs) == 2
    for graph in graphs:
        assert [n.target for n in graph.nodes if n.op != "placeholder"] == [
            n.target for n in plain[0].nodes if n.op != "placeholder"
        ]
