"""The GaLore names against galore_torch's own classes, built by hand."""

import inspect
import pickle
import subprocess
import sys
import warnings
from copy import deepcopy
from pathlib import Path

import galore_torch
import pytest
import torch
from galore_torch.galore_projector import GaLoreProjector
from hub_galore.hooks import SPECS, LowRankArguments
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.arguments import AdafactorBase
from hub.testing.comparing import assert_same, moved, through_a_file, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*(bf16|fp16):hub.HubWarning")

SPEC = {spec.name: spec for spec in SPECS}
CLASSES = {
    "galore_adamw": galore_torch.GaLoreAdamW,
    "galore_adafactor": galore_torch.GaLoreAdafactor,
    "galore_adamw_8bit": galore_torch.GaLoreAdamW8bit,
}
LOW_RANK = {"rank": 4, "update_proj_gap": 3, "scale": 0.5, "proj_type": "std"}
OWN = {
    "galore_adamw": {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7},
    "galore_adafactor": {"lr": 0.01, "eps": (1e-28, 1e-2), "beta1": 0.9, "decay_rate": -0.7},
    "galore_adamw_8bit": {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7},
}
every_name = pytest.mark.parametrize("name", CLASSES)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
every_projection = pytest.mark.parametrize(
    "proj_type", ["std", "reverse_std", "right", "left", "full"]
)


class Model(nn.Sequential):
    """A tall and a wide target, and a head whose size is no target."""

    def __init__(self, dtype=torch.float32):
        torch.manual_seed(0)
        super().__init__(
            nn.Linear(64, 128), nn.LayerNorm(128), nn.Linear(128, 64), nn.Linear(64, 3)
        )
        self.to(dtype)


TARGETS = ["0", "2"]


def gradients(model, step):
    """Fill in the gradients of one deterministic batch."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 64, generator=generator).to(next(model.parameters()).dtype)
    model.zero_grad()
    model(inputs).float().square().mean().backward()


def train(model, optimizer, steps):
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


def build(name, model, **arguments):
    arguments = {**LOW_RANK, **OWN[name], "weight_decay": 0.1, **arguments}
    return hub.build(name, model, target_modules=TARGETS, **arguments)


def groups_by_hand(model, **low_rank):
    targets = [model[0].weight, model[2].weight]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": [model[3].weight]},
        {"params": others, "weight_decay": 0.0},
        {"params": targets, **LOW_RANK, **low_rank},
    ]


def by_hand(name, model, low_rank=None, **arguments):
    """Upstream's class over the same groups, the mistakes of its 8-bit one corrected."""
    arguments = {**OWN[name], "weight_decay": 0.1, **arguments}
    if name == "galore_adamw":
        arguments["no_deprecation_warning"] = True
    if name == "galore_adafactor":
        arguments = {"relative_step": False, "scale_parameter": False, **arguments}
    optimizer = CLASSES[name](groups_by_hand(model, **(low_rank or {})), **arguments)
    if name == "galore_adamw_8bit":
        optimizer.args.max_unorm, optimizer.args.skip_zeros = 0.0, False
    return optimizer


@pytest.fixture(autouse=True)
def _no_cuda_call(monkeypatch):
    """Upstream's 8-bit class synchronises with a device that need not be there."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


# What upstream takes and ignores (8-bit), or what hub decides.
LEFT_OUT = {
    "galore_adamw": {"no_deprecation_warning"},
    "galore_adafactor": set(),
    "galore_adamw_8bit": {
        "amsgrad",
        "optim_bits",
        "args",
        "percentile_clipping",
        "block_wise",
        "is_paged",
    },
}
OTHER_DEFAULTS = {
    "galore_adafactor": {"lr": 1e-3, "scale_parameter": False, "relative_step": False}
}


@every_name
def test_the_arguments_and_their_defaults_are_upstreams(name):
    fields = SPEC[name].arguments.model_fields
    ours = {key: f.default for key, f in fields.items() if key not in LowRankArguments.model_fields}
    theirs = inspect.signature(CLASSES[name]).parameters
    expected = {key: p.default for key, p in theirs.items() if key not in LEFT_OUT[name]}
    del expected["params"]
    assert ours == {**expected, **OTHER_DEFAULTS.get(name, {})}


@every_name
def test_the_projection_has_the_defaults_of_transformers(name):
    fields = SPEC[name].arguments.model_fields
    defaults = {key: fields[key].default for key in LowRankArguments.model_fields}
    assert defaults == {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
    assert all(field.description for field in fields.values())


@both_dtypes
@every_projection
@every_name
def test_it_is_the_upstream_optimizer(name, proj_type, dtype):
    ours, theirs = Model(dtype), Model(dtype)
    optimizer = build(name, ours, proj_type=proj_type)
    reference = by_hand(name, theirs, {"proj_type": proj_type})
    assert isinstance(optimizer, CLASSES[name])
    assert_same(train(ours, optimizer, range(7)), train(theirs, reference, range(7)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"relative_step": True, "lr": None, "warmup_init": True},
        {"scale_parameter": True, "clip_threshold": 0.5, "beta1": None},
    ],
    ids=["relative_step", "scale_parameter"],
)
@both_dtypes
def test_adafactor_is_the_upstream_optimizer(arguments, dtype):
    ours, theirs = Model(dtype), Model(dtype)
    train(ours, build("galore_adafactor", ours, **arguments), range(5))
    assert_same(ours, train(theirs, by_hand("galore_adafactor", theirs, **arguments), range(5)))


@pytest.mark.parametrize("rank", [4, 40], ids=["32-bit state", "8-bit state"])
def test_the_8bit_optimizer_is_upstreams_above_and_below_4096_elements(rank):
    ours, theirs = Model(), Model()
    optimizer = build("galore_adamw_8bit", ours, rank=rank)
    reference = by_hand("galore_adamw_8bit", theirs, {"rank": rank})
    assert_same(train(ours, optimizer, range(5)), train(theirs, reference, range(5)))
    is_8bit = optimizer.state[ours[0].weight]["state1"].dtype == torch.uint8
    assert is_8bit == (rank == 40)


def test_correct_bias_reaches_upstream():
    ours, theirs = Model(), Model()
    train(ours, build("galore_adamw", ours, correct_bias=False), range(3))
    assert_same(ours, train(theirs, by_hand("galore_adamw", theirs, correct_bias=False), range(3)))


@every_name
def test_a_rank_above_the_smaller_side_keeps_everything(name):
    model, other = Model(), Model()
    train(model, build(name, model, rank=64), range(4))
    assert_same(train(other, build(name, other, rank=1000), range(4)), model)


@both_dtypes
@every_projection
@every_name
def test_it_resumes_exactly(name, proj_type, dtype):
    straight = Model(dtype)
    train(straight, build(name, straight, proj_type=proj_type), range(8))
    model = Model(dtype)
    optimizer = build(name, model, proj_type=proj_type)
    train(model, optimizer, range(4))
    loaded = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = Model(dtype)
    fresh.load_state_dict(loaded[0])
    resumed = build(name, fresh, proj_type=proj_type)
    resumed.load_state_dict(loaded[1])
    assert_same(train(fresh, resumed, range(4, 8)), straight)


@both_dtypes
@every_name
def test_it_resumes_exactly_with_8bit_state_and_after_several_loads(name, dtype):
    straight = Model(dtype)
    train(straight, build(name, straight, rank=40), range(9))
    model, saved = Model(dtype), None
    for steps in [range(2), range(2, 5), range(5, 9)]:
        resumed = Model(dtype)
        resumed.load_state_dict(model.state_dict())
        model, optimizer = resumed, build(name, resumed, rank=40)
        if saved:
            optimizer.load_state_dict(saved)
        train(model, optimizer, steps)
        saved = through_a_file(optimizer.state_dict())
    assert_same(model, straight)


@every_name
def test_a_distributed_checkpoint_resumes_exactly(name):
    straight = Model()
    train(straight, build(name, straight), range(8))
    model = Model()
    optimizer = build(name, model)
    train(model, optimizer, range(4))
    saved = deepcopy(get_optimizer_state_dict(model, optimizer))
    fresh = Model()
    fresh.load_state_dict(model.state_dict())
    resumed = build(name, fresh)
    set_optimizer_state_dict(fresh, resumed, saved)
    assert_same(train(fresh, resumed, range(4, 8)), straight)


@every_name
@pytest.mark.parametrize("proj_type", ["std", "full"])
def test_projectors_are_saved_by_rows_and_come_back_with_their_strides(name, proj_type):
    """`dist.broadcast` sends memory as it lies, and products round by the order of strides."""
    straight, model, fresh = Model(), Model(), Model()
    train(straight, build(name, straight, proj_type=proj_type), range(8))
    optimizer = build(name, model, proj_type=proj_type)
    train(model, optimizer, range(4))
    saved = through_a_file(optimizer.state_dict())
    tensors = [v for s in saved["state"].values() for v in _flat(s.get("projector", ()))]
    assert len(tensors) == (4 if proj_type == "full" else 2)
    assert all(tensor.is_contiguous() for tensor in tensors)
    live = [m for s in optimizer.state.values() for m in _matrices(s)]
    assert not all(matrix.is_contiguous() for matrix in live)
    fresh.load_state_dict(model.state_dict())
    again = build(name, fresh, proj_type=proj_type)
    again.load_state_dict(saved)
    loaded = [m for s in again.state.values() for m in _matrices(s)]
    assert [m.stride() for m in loaded] == [m.stride() for m in live]
    assert_same(train(fresh, again, range(4, 8)), straight)


@pytest.mark.parametrize("name", ["galore_adamw", "galore_adafactor"])
def test_two_processes_resume_exactly_from_what_rank_0_broadcasts(name, tmp_path):
    script = Path(__file__).with_name("broadcast.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(rank), str(tmp_path / "store"), name],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors


def _flat(value):
    return value if isinstance(value, list | tuple) else [value]


def _matrices(state):
    return _flat(state["projector"].ortho_matrix) if "projector" in state else []


def test_a_compiled_step_equals_the_compiled_step_of_the_bare_class():
    models = Model(), Model()
    optimizers = build("galore_adamw", models[0]), by_hand("galore_adamw", models[1])
    for model, optimizer in zip(models, optimizers, strict=True):
        step = torch.compile(optimizer.step, backend="eager")
        for number in range(5):
            gradients(model, number)
            step()
    assert_same(*models)


@every_name
def test_saving_changes_nothing_and_loading_shares_nothing(name):
    straight, model = Model(), Model()
    train(straight, build(name, straight), range(8))
    optimizer = build(name, model)
    train(model, optimizer, range(4))
    other = Model()
    other.load_state_dict(model.state_dict())
    copy = build(name, other)
    copy.load_state_dict(optimizer.state_dict())
    mine, theirs = optimizer.state[model[0].weight], copy.state[other[0].weight]
    assert isinstance(mine["projector"], GaLoreProjector)
    assert isinstance(theirs["projector"], GaLoreProjector)
    assert mine["projector"] is not theirs["projector"]
    assert_same(train(model, optimizer, range(4, 8)), straight)


@every_projection
@every_name
def test_state_dicts_hold_tensors_and_plain_data(name, proj_type):
    def leaves(value):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item) if isinstance(item, dict | list | tuple) else [item]

    model = Model()
    optimizer = build(name, model, proj_type=proj_type)
    train(model, optimizer, [0])
    for leaf in leaves(optimizer.state_dict()["state"]):
        assert isinstance(leaf, torch.Tensor | int | float)


@every_name
def test_a_checkpoint_that_upstream_pickled_is_loaded(name):
    straight, model = Model(), Model()
    train(straight, by_hand(name, straight), range(8))
    reference = by_hand(name, model)
    train(model, reference, range(4))
    pickled = pickle.loads(pickle.dumps(reference.state_dict()))
    fresh = Model()
    fresh.load_state_dict(model.state_dict())
    optimizer = build(name, fresh)
    optimizer.load_state_dict(pickled)
    assert_same(train(fresh, optimizer, range(4, 8)), straight)
    through_a_file(optimizer.state_dict())
    optimizer.load_state_dict(reference.state_dict())
    live = reference.state[model[0].weight]["projector"]
    assert optimizer.state[fresh[0].weight]["projector"] is not live


@every_name
def test_a_gradient_that_is_not_finite_spoils_no_checkpoint(name):
    model = Model()
    optimizer = build(name, model)
    gradients(model, 0)
    model[0].weight.grad[0, 0] = float("nan")
    with pytest.raises(torch.linalg.LinAlgError):
        optimizer.step()
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = Model()
    fresh.load_state_dict(saved[0])
    resumed = build(name, fresh)
    resumed.load_state_dict(saved[1])
    assert_same(train(fresh, resumed, range(2)), train(model, optimizer, range(2)))


@every_projection
@every_name
def test_the_projection_takes_only_the_memory_of_its_rank(name, proj_type):
    model = Model()
    optimizer = build(name, model, proj_type=proj_type)
    train(model, optimizer, [0])
    matrices = optimizer.state[model[0].weight]["projector"].ortho_matrix
    for matrix in matrices if isinstance(matrices, list) else [matrices]:
        assert min(matrix.shape) == LOW_RANK["rank"]
        assert matrix.untyped_storage().nbytes() == matrix.nbytes


def test_the_bare_projector_keeps_the_whole_factor():
    """When this fails, `factory._compact` is not needed any more."""
    projector = GaLoreProjector(4)
    projector.project(torch.randn(128, 64), 0)
    assert projector.ortho_matrix.untyped_storage().nbytes() == 64 * 64 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rank", [4, 40], ids=["small state", "large state"])
@every_name
def test_every_weight_trains(name, rank, dtype):
    if dtype == torch.float16 and "fp16" not in SPEC[name].precisions:
        with pytest.raises(hub.PrecisionError, match="fp16"):
            build(name, Model(dtype))
        return
    model = Model(dtype)
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
    nn.init.ones_(model[1].weight)
    before = weights(model)
    train(model, build(name, model, rank=rank, scale=1.0, weight_decay=0.0), range(20))
    assert moved(model, before) == set(before)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_bare_8bit_class_freezes_small_state_and_zero_biases():
    """When this fails, `factory.GaLoreAdamW8bit` may not be needed any more."""
    model = Model()
    nn.init.zeros_(model[3].bias)
    before = weights(model)
    optimizer = galore_torch.GaLoreAdamW8bit(groups_by_hand(model), lr=0.01, weight_decay=0.0)
    train(model, optimizer, range(5))
    assert not moved(model, before) & {"0.weight", "2.weight", "3.bias"}


def loss_after(model, optimizer, steps):
    train(model, optimizer, range(steps))
    inputs = torch.randn(64, 64, generator=torch.Generator().manual_seed(99))
    return model.float()(inputs).square().mean().item()


@pytest.mark.parametrize("name", ["galore_adafactor", "galore_adamw_8bit"])
def test_fp16_weights_learn_as_fp32_ones_do(name):
    exact, half = Model(), Model(torch.float16)
    expected = loss_after(exact, build(name, exact), 20)
    assert expected < 0.1
    assert loss_after(half, build(name, half), 20) == pytest.approx(expected, rel=0.2)


def test_the_bare_adamw_does_not_train_fp16_weights():
    """When this fails, `galore_adamw` may declare fp16."""
    model = Model(torch.float16)
    with pytest.raises(torch.linalg.LinAlgError, match="non-finite"):
        train(model, by_hand("galore_adamw", model), range(20))


@every_name
def test_decay_reaches_exactly_the_decayed_parameters(name):
    model = Model()
    before = weights(model)
    optimizer = build(name, model, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert moved(model, before) == {"0.weight", "2.weight", "3.weight"}
    torch.testing.assert_close(model[0].weight, before["0.weight"] * (1 - 0.01 * 0.5))
    torch.testing.assert_close(model[3].weight, before["3.weight"] * (1 - 0.01 * 0.5))


@every_name
def test_arguments_reach_every_group_and_projections_only_low_rank_ones(name):
    optimizer = build(name, Model())
    for group in optimizer.param_groups:
        assert {key: group[key] for key in OWN[name]} == OWN[name]
        low_rank = {key: group[key] for key in LOW_RANK if key in group}
        assert low_rank == (LOW_RANK if group["name"].startswith("low_rank") else {})


@every_name
def test_the_next_update_uses_the_learning_rate_of_the_group(name):
    model = Model()
    optimizer = build(name, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = weights(model)
    train(model, optimizer, range(2))
    assert not moved(model, before)


@every_name
def test_a_closure_may_call_backward(name):
    model, other = Model(), Model()
    optimizer = build(name, model)

    def closure():
        gradients(model, optimizer.param_groups[0].setdefault("calls", 0))
        optimizer.param_groups[0]["calls"] += 1
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert optimizer.step(closure=closure) == 7.0
    assert_same(model, train(other, build(name, other), range(2)))


@pytest.mark.parametrize("name", ["galore_adamw", "galore_adafactor"])
def test_the_bare_classes_cannot_take_a_closure(name):
    """When this fails, `factory._enable_grad_in_closure` is not needed any more."""
    model = Model()
    with pytest.raises(RuntimeError, match="does not require grad"):
        by_hand(name, model).step(lambda: gradients(model, 0))


def test_building_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("galore_adamw", Model())


def test_the_8bit_step_leaves_weights_gradients_and_groups_in_place():
    model = Model()
    optimizer = build("galore_adamw_8bit", model)
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    attributes = {name: set(vars(p)) for name, p in model.named_parameters()}
    gradients(model, 0)
    kept = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()}
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == places[name]
        assert set(vars(parameter)) == attributes[name]
        assert parameter.grad is kept[name][0]
        assert torch.equal(parameter.grad, kept[name][1])
    assert settings == [
        {k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups
    ]
    assert set(optimizer.state) == set(model.parameters())


def test_the_8bit_step_keeps_the_layout_of_weights_that_are_not_contiguous():
    straight, transposed = Model(), Model()
    weight = transposed[3].weight = nn.Parameter(transposed[3].weight.detach().t().contiguous().t())
    place, strides = weight.data_ptr(), weight.stride()
    optimizers = [build("galore_adamw_8bit", model) for model in (straight, transposed)]
    for step in range(3):
        gradients(straight, step)
        for parameter, other in zip(transposed.parameters(), straight.parameters(), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(other.grad)
        for optimizer in optimizers:
            optimizer.step()
    assert (weight.data_ptr(), weight.stride()) == (place, strides)
    assert_same(straight, transposed)


def test_the_8bit_step_leaves_no_trace_when_bitsandbytes_fails(monkeypatch):
    model = Model()
    optimizer = build("galore_adamw_8bit", model)
    gradients(model, 0)

    def fail(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(optimizer, "update_step", fail)
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is model[0].weight]
    before = weights(model)
    with pytest.raises(RuntimeError, match="no kernel"):
        optimizer.step()
    assert not moved(model, before)
    assert set(optimizer.state) <= set(model.parameters())


def test_bitsandbytes_does_not_decay_projected_updates(monkeypatch):
    # Its CPU kernels decay first, here a zero, so that no weight would show the mistake.
    model, seen = Model(), {}
    optimizer = build("galore_adamw_8bit", model)
    update_step = optimizer.update_step

    def spy(group, tensor, *at):
        seen[tuple(tensor.shape)] = group["weight_decay"]
        update_step(group, tensor, *at)

    monkeypatch.setattr(optimizer, "update_step", spy)
    train(model, optimizer, [0])
    assert seen == {(128, 4): 0.0, (4, 128): 0.0, (3, 64): 0.1, (128,): 0.0, (64,): 0.0, (3,): 0.0}


def test_min_8bit_size_decides_on_the_projected_size():
    model = Model()
    optimizer = build("galore_adamw_8bit", model, min_8bit_size=256)
    train(model, optimizer, [0])
    dtypes = {key: optimizer.state[p]["state1"].dtype for key, p in model.named_parameters()}
    small = {key for key, dtype in dtypes.items() if dtype == torch.float32}
    assert small == set(dtypes) - {"0.weight", "2.weight"}


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("galore_adamw", {"rank": 0}, "rank"),
        ("galore_adamw", {"rank": 4.5}, "integer"),
        ("galore_adamw", {"update_proj_gap": 0}, "update_proj_gap"),
        ("galore_adamw", {"scale": 0.0}, "scale"),
        ("galore_adamw", {"proj_type": "continuous"}, "reverse_std"),
        ("galore_adamw", {"betas": (0.9, 1.0)}, "less than 1"),
        ("galore_adamw", {"beta1": 0.9}, "no argument 'beta1'"),
        ("galore_adamw_8bit", {"amsgrad": True}, "no argument 'amsgrad'"),
        ("galore_adamw_8bit", {"is_paged": True}, "no argument 'is_paged'"),
        ("galore_adamw_8bit", {"min_8bit_size": -1}, "greater than or equal to 0"),
        ("galore_adafactor", {"relative_step": True}, "needs lr=None, not lr=0.01"),
        ("galore_adafactor", {"lr": None}, "relative_step=True"),
        ("galore_adafactor", {"warmup_init": True}, "needs relative_step=True"),
        ("galore_adafactor", {"eps": 1e-8}, "eps"),
        ("galore_adafactor", {"decay_rate": 0.8}, "less than or equal to 0"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(name, Model(), **arguments)


@pytest.mark.parametrize("decay_rate", [-0.8, 0.0])
def test_relative_step_alone_means_what_it_does_for_adafactor(decay_rate):
    def built(name, **arguments):
        model = Model()
        optimizer = hub.build(
            name, model, relative_step=True, decay_rate=decay_rate, beta1=0.9, **arguments
        )
        train(model, optimizer, range(3))
        return {argument.name: argument for argument in optimizer.hub_plan.arguments}

    low_rank = built("galore_adafactor", target_modules=TARGETS, **LOW_RANK)
    plain = built("adafactor")
    assert low_rank["lr"].value is None
    assert {low_rank[key] for key in AdafactorBase.model_fields} == {
        plain[key] for key in AdafactorBase.model_fields
    }


@every_name
def test_a_reverse_projection_that_cannot_go_back_is_refused(name):
    with pytest.raises(hub.OptimArgsError, match="64x128 weight at rank 64") as refused:
        build(name, Model(), proj_type="reverse_std", rank=64)
    assert refused.value.where == "2"
    build(name, Model(), proj_type="reverse_std", rank=63)


def test_the_bare_projector_cannot_project_that_back():
    """When this fails, `hooks._irreversible` is not needed any more."""
    projector = GaLoreProjector(64, proj_type="reverse_std")
    projected = projector.project(torch.randn(64, 128), 0)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        projector.project_back(projected)


@pytest.mark.parametrize("name", ["galore_adamw_8bit", "galore_adafactor"])
def test_sharded_parameters_are_refused(name):
    model = Model()
    model[2].weight.device_mesh = "as a DTensor has it"
    with pytest.raises(hub.UnsupportedError, match="FSDP2") as refused:
        build(name, model)
    assert refused.value.where == "2.weight"


def test_the_hooks_import_neither_torch_nor_galore_torch():
    code = (
        "import sys, hub_galore.hooks\n"
        "assert not {'torch', 'galore_torch', 'hub_galore.factory'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
