"""`apollo_adamw` against apollo_torch's own class, built by hand."""

import inspect
import pathlib
import pickle
import subprocess
import sys
from copy import deepcopy

import apollo_torch
import pytest
import torch
import torch.distributed.checkpoint as dcp
from apollo_torch.random_projector import next_seed
from apollo_torch.svd_projector import GaLoreProjector
from hub_apollo import factory
from hub_apollo.hooks import SPEC, APOLLOArguments, LowRankArguments
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import hub
from hub.testing.comparing import assert_same, moved, through_a_file, weights

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16:hub.HubWarning")

LOW_RANK = {
    "rank": 4,
    "update_proj_gap": 3,
    "scale": 2.0,
    "proj": "random",
    "proj_type": "std",
    "scale_type": "channel",
}
OWN = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7}
MINI = {"rank": 1, "scale": 128.0, "scale_type": "tensor"}
PROJECTIONS = {
    "random": {},
    "svd": {"proj": "svd"},
    "mini": MINI,
    "random reverse": {"proj_type": "reverse_std", "scale_type": "tensor"},
    "random left": {"proj_type": "left", "scale_type": "tensor"},
    "svd reverse": {"proj": "svd", "proj_type": "reverse_std", "scale_type": "tensor"},
    "svd right": {"proj": "svd", "proj_type": "right", "scale_type": "tensor"},
    "random above both sides": {"rank": 50},
    "random above a side, reverse": {
        "rank": 30,
        "proj_type": "reverse_std",
        "scale_type": "tensor",
    },
    "svd above a side": {"proj": "svd", "rank": 30},
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
every_projection = pytest.mark.parametrize(
    "projection", PROJECTIONS.values(), ids=PROJECTIONS.keys()
)
both_projections = pytest.mark.parametrize("proj", ["random", "svd"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())


class Model(nn.Sequential):
    """A tall and a wide target, and a head that is no target."""

    def __init__(self, dtype=torch.float32):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(
                nn.Linear(24, 40), nn.LayerNorm(40), nn.Linear(40, 24), nn.Linear(24, 3)
            )
        self.to(dtype)


TARGETS = ["0", "2"]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradients(model, step):
    """Fill in the gradients of one deterministic batch."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(8, 24, generator=generator).to(next(model.parameters()).dtype)
    model.zero_grad()
    model(inputs).float().square().mean().backward()


def train(model, optimizer, steps):
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model


def build(model, target_modules=TARGETS, param_rules=None, **arguments):
    return hub.build(
        "apollo_adamw",
        model,
        target_modules=target_modules,
        param_rules=param_rules,
        **{**LOW_RANK, **OWN, "weight_decay": 0.1, **arguments},
    )


def groups_by_hand(model, low_rank=None):
    return [
        {"params": [model[3].weight]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        {
            "params": [model[0].weight, model[2].weight],
            **LOW_RANK,
            **(low_rank or {}),
        },
    ]


def by_hand(model, low_rank=None, own_seeds=False, **arguments):
    """Upstream's class over the same groups, by default with the seeds that hub takes."""
    optimizer = apollo_torch.APOLLOAdamW(
        groups_by_hand(model, low_rank), **{**OWN, "weight_decay": 0.1, **arguments}
    )
    if not own_seeds:
        for name in TARGETS:
            seed = factory._seed_of(f"{name}.weight")
            optimizer.state[model[int(name)].weight]["seed"] = seed
    return optimizer


def resumed(model, optimizer, dtype=torch.float32, **arguments):
    """A fresh model and optimizer that go on from a file."""
    saved = through_a_file([model.state_dict(), optimizer.state_dict()])
    fresh = Model(dtype)
    fresh.load_state_dict(saved[0])
    continued = build(fresh, **arguments)
    continued.load_state_dict(saved[1])
    return fresh, continued


def copy_of(model):
    other = Model(next(model.parameters()).dtype)
    other.load_state_dict(model.state_dict())
    return other


def projector(optimizer, parameter):
    return optimizer.state[parameter]["projector"]


def test_the_arguments_and_their_defaults_are_upstreams():
    theirs = inspect.signature(apollo_torch.APOLLOAdamW).parameters
    expected = {key: p.default for key, p in theirs.items()}
    del expected["params"], expected["no_deprecation_warning"]
    fields = APOLLOArguments.model_fields
    low_rank = LowRankArguments.model_fields
    assert {key: f.default for key, f in fields.items() if key not in low_rank} == expected
    assert all(field.description for field in fields.values())


def test_the_projection_has_the_defaults_of_transformers():
    fields = LowRankArguments.model_fields
    assert {key: field.default for key, field in fields.items()} == {
        "rank": 128,
        "update_proj_gap": 200,
        "scale": 1.0,
        "proj": "random",
        "proj_type": "std",
        "scale_type": "channel",
    }
    assert all(f"{key}=" in " ".join(SPEC.notes) for key in fields)


def test_the_licence_is_told():
    assert SPEC.license == "CC-BY-NC-4.0"
    assert any("not for commercial use" in note for note in SPEC.notes)


@every_dtype
@every_projection
def test_it_is_the_upstream_optimizer(projection, dtype):
    ours, theirs = Model(dtype), Model(dtype)
    optimizer = build(ours, **projection)
    assert isinstance(optimizer, apollo_torch.APOLLOAdamW)
    train(ours, optimizer, range(8))
    assert_same(ours, train(theirs, by_hand(theirs, projection), range(8)))


@pytest.mark.parametrize(
    "arguments",
    [{"correct_bias": False}, {"scale_front": True}, {"disable_nl": True}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_every_switch_reaches_upstream(arguments):
    ours, theirs, without = Model(), Model(), Model()
    train(ours, build(ours, **arguments), range(5))
    assert_same(ours, train(theirs, by_hand(theirs, **arguments), range(5)))
    assert moved(train(without, build(without), range(5)), weights(ours))


@pytest.mark.parametrize(
    ("proj_type", "target"), [("right", "0"), ("left", "2")], ids=["tall", "wide"]
)
def test_the_smaller_side_can_be_named(proj_type, target):
    ours, theirs = Model(), Model()
    train(ours, build(ours, [target], proj_type=proj_type), range(4))
    assert_same(ours, train(theirs, build(theirs, [target]), range(4)))


@pytest.mark.parametrize("split", [3, 4], ids=["before a new projection", "between"])
@every_dtype
@every_projection
def test_it_resumes_exactly(projection, dtype, split):
    straight, model = Model(dtype), Model(dtype)
    train(straight, build(straight, **projection), range(8))
    optimizer = build(model, **projection)
    train(model, optimizer, range(split))
    fresh, continued = resumed(model, optimizer, dtype, **projection)
    assert_same(train(fresh, continued, range(split, 8)), straight)


@both_projections
def test_it_resumes_exactly_after_several_loads(proj):
    straight, model = Model(), Model()
    train(straight, build(straight, proj=proj), range(9))
    optimizer = build(model, proj=proj)
    for steps in [range(2), range(2, 2), range(2, 5), range(5, 6), range(6, 6), range(6, 9)]:
        model, optimizer = resumed(model, optimizer, proj=proj)
        train(model, optimizer, steps)
    assert_same(model, straight)


@both_projections
def test_saving_changes_nothing_and_loading_shares_nothing(proj):
    straight, model = Model(), Model()
    train(straight, build(straight, proj=proj), range(8))
    optimizer = build(model, proj=proj)
    train(model, optimizer, range(4))
    other = copy_of(model)
    second = build(other, proj=proj)
    second.load_state_dict(deepcopy(optimizer.state_dict()))
    train(other, second, range(4, 6))
    assert projector(optimizer, model[0].weight) is not projector(second, other[0].weight)
    assert_same(train(model, optimizer, range(4, 8)), straight)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "on disk"])
@every_projection
def test_a_distributed_checkpoint_resumes_exactly(projection, on_disk, tmp_path):
    straight, model = Model(), Model()
    train(straight, build(straight, **projection), range(8))
    optimizer = build(model, **projection)
    train(model, optimizer, range(4))
    fresh = copy_of(model)
    continued = build(fresh, **projection)
    saved = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    if on_disk:
        dcp.save(saved, checkpoint_id=tmp_path, no_dist=True)
        saved = {"optimizer": get_optimizer_state_dict(fresh, continued)}
        dcp.load(saved, checkpoint_id=tmp_path, no_dist=True)
    set_optimizer_state_dict(fresh, continued, deepcopy(saved["optimizer"]))
    assert_same(train(fresh, continued, range(4, 8)), straight)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_of_the_bare_class_loses_its_state(tmp_path):
    """When this fails, the state need not be empty at first (`factory.APOLLOAdamW.__init__`)."""
    model, fresh = Model(), Model()
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    saved = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.save(saved, checkpoint_id=tmp_path, no_dist=True)
    loaded = {"optimizer": get_optimizer_state_dict(fresh, by_hand(fresh))}
    dcp.load(loaded, checkpoint_id=tmp_path, no_dist=True)
    assert set(loaded["optimizer"]["state"]["0.weight"]) == {"seed"}


@every_projection
def test_state_dicts_hold_tensors_and_plain_data(projection):
    model = Model()
    optimizer = build(model, **projection)
    assert optimizer.state_dict()["state"] == {}
    train(model, optimizer, [0])
    values = [v for state in optimizer.state_dict()["state"].values() for v in state.values()]
    assert all(type(value) in (torch.Tensor, int, bool) for value in values)


def test_bare_checkpoints_need_full_unpickling():
    """When this fails, `factory._saved` may not be needed any more."""
    model = Model()
    optimizer = by_hand(model)
    train(model, optimizer, [0])
    with pytest.raises(pickle.UnpicklingError, match="GradientProjector"):
        through_a_file(optimizer.state_dict())


@every_projection
def test_a_checkpoint_that_upstream_pickled_is_loaded(projection):
    straight, model = Model(), Model()
    train(straight, by_hand(straight, projection, own_seeds=True), range(8))
    reference = by_hand(model, projection, own_seeds=True)
    train(model, reference, range(5))
    fresh = copy_of(model)
    optimizer = build(fresh, **projection)
    optimizer.load_state_dict(pickle.loads(pickle.dumps(reference.state_dict())))
    fresh, optimizer = resumed(fresh, optimizer, **projection)
    assert_same(train(fresh, optimizer, range(5, 8)), straight)
    optimizer.load_state_dict(reference.state_dict())
    assert projector(optimizer, fresh[0].weight) is not projector(reference, model[0].weight)


@both_projections
def test_a_checkpoint_of_upstream_before_its_first_step_is_loaded(proj):
    straight, model = Model(), Model()
    train(straight, by_hand(straight, {"proj": proj}, own_seeds=True), range(4))
    optimizer = build(model, proj=proj)
    optimizer.load_state_dict(by_hand(Model(), {"proj": proj}, own_seeds=True).state_dict())
    model, optimizer = resumed(model, optimizer, proj=proj)
    assert_same(train(model, optimizer, range(4)), straight)


def test_a_projection_that_does_not_follow_from_its_seed_is_refused():
    model = Model()
    reference = by_hand(model)
    train(model, reference, range(2))
    state_dict = reference.state_dict()
    for state in state_dict["state"].values():
        state["seed"] = 12345
    optimizer = build(Model())
    with pytest.raises(hub.CheckpointError, match="not drawn from the seed"):
        optimizer.load_state_dict(state_dict)


def first_seeds(optimizer):
    """The seed of each target's first matrix, by name, from what is saved."""
    saved = optimizer.state_dict()
    names = [name for group in saved["param_groups"] for name in group["param_names"]]
    return {
        names[number]: state["seed"] for number, state in saved["state"].items() if "seed" in state
    }


def one_by_one(model):
    """An optimizer for each parameter, as a step in the backward pass needs them."""
    whole = build(model)
    for group in whole.param_groups:
        settings = {k: v for k, v in group.items() if k not in ("params", "param_names")}
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            alone = {"params": [parameter], "param_names": [name], **settings}
            yield factory.APOLLOAdamW([alone])


def test_seeds_follow_from_names_in_every_form():
    model = Model()
    optimizer = build(model)
    train(model, optimizer, [0])
    seeds = first_seeds(optimizer)
    assert set(seeds) == {"0.weight", "2.weight"}
    assert len(set(seeds.values())) == 2
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    alone = {}
    other = Model()
    gradients(other, 0)
    for single in one_by_one(other):
        single.step()
        alone |= first_seeds(single)
    assert alone == seeds
    assert_same(model, other)


def test_seeds_do_not_depend_on_the_order_of_groups_or_on_rules():
    model, other = Model(), Model()
    optimizer = build(model)
    reordered = build(other, param_rules={"2": {"lr": 0.02}})
    train(model, optimizer, [0])
    train(other, reordered, [0])
    assert first_seeds(optimizer) == first_seeds(reordered)


def test_layers_of_one_shape_have_different_projections():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    optimizer = hub.build("apollo_adamw", model, target_modules="all-linear", rank=4)
    model(torch.ones(2, 16)).sum().backward()
    optimizer.step()
    matrices = [projector(optimizer, layer.weight).ortho_matrix for layer in model]
    assert not torch.equal(*matrices)


def test_the_bare_class_has_one_seed_for_all_that_are_built_one_by_one():
    """When this and the next two fail, the seeds of `factory.APOLLOAdamW` may not be needed."""
    alone = [apollo_torch.APOLLOAdamW([{"params": [p], **LOW_RANK}]) for p in Model().parameters()]
    assert {o.state[o.param_groups[0]["params"][0]]["seed"] for o in alone} == {1}


def test_the_bare_class_takes_no_parameter_that_comes_later():
    model = Model()
    optimizer = apollo_torch.APOLLOAdamW([{"params": [model[0].weight], **LOW_RANK}])
    optimizer.add_param_group({"params": [model[2].weight], **LOW_RANK})
    with pytest.raises(KeyError, match="seed"):
        train(model, optimizer, [0])


def test_the_bare_class_takes_no_parameter_that_was_frozen():
    model = Model()
    model[0].weight.requires_grad_(False)
    optimizer = by_hand(model, own_seeds=True)
    model[0].weight.requires_grad_(True)
    with pytest.raises(KeyError, match="seed"):
        train(model, optimizer, [0])


@both_projections
def test_a_group_added_later_trains_as_if_it_had_been_there(proj):
    straight, model = Model(), Model()
    train(straight, build(straight, proj=proj), range(4))
    model[2].weight.requires_grad_(False)
    optimizer = build(model, ["0"], proj=proj)
    model[2].weight.requires_grad_(True)
    optimizer.add_param_group(
        {"params": [model[2].weight], "param_names": ["2.weight"], "rank": 4, "name": "late"}
    )
    late = optimizer.param_groups[-1]
    assert {key: late[key] for key in LOW_RANK} == {**LOW_RANK, "proj": proj}
    assert_same(train(model, optimizer, range(4)), straight)


def test_a_plain_group_added_later_is_not_projected():
    model = Model()
    model[3].requires_grad_(False)
    optimizer = build(model)
    model[3].requires_grad_(True)
    optimizer.add_param_group({"params": [model[3].weight], "param_names": ["3.weight"]})
    before = weights(model)
    train(model, optimizer, range(2))
    assert optimizer.state[model[3].weight]["exp_avg"].shape == model[3].weight.shape
    assert "3.weight" in moved(model, before)


def test_a_parameter_that_is_frozen_in_its_group_can_be_trained_later():
    model = Model()
    optimizer = build(model)
    model[0].weight.requires_grad_(False)
    before = weights(model)
    train(model, optimizer, range(2))
    assert "0.weight" not in moved(model, before)
    fresh, continued = resumed(model, optimizer)
    fresh[0].weight.requires_grad_(True)
    train(fresh, continued, range(2, 4))
    assert "0.weight" in moved(fresh, before)


@both_projections
def test_copies_go_on_exactly(proj):
    model = Model()
    arguments = {"proj": proj, "scale_front": True}
    optimizer = build(model, **arguments)
    train(model, optimizer, range(4))
    hub.detach(optimizer)
    other, copy = deepcopy((model, optimizer))
    assert isinstance(copy, factory.APOLLOAdamW)
    train(model, optimizer, range(4, 8))
    assert copy.step(lambda: gradients(other, 4)) is None
    assert_same(train(other, copy, range(5, 8)), model)
    through_a_file(copy.state_dict())


def test_copies_of_the_bare_class_fail():
    """When this fails, `factory.APOLLOAdamW.__getstate__` is not needed any more."""
    model, optimizer = deepcopy((model := Model(), by_hand(model)))
    with pytest.raises(AttributeError, match="scale_front"):
        train(model, optimizer, [0])


def zero_gradients(model):
    for parameter in model.parameters():
        parameter.grad.zero_()


@pytest.mark.parametrize("at", [0, 3], ids=["first", "later"])
@pytest.mark.parametrize("projection", [{}, MINI, {"proj": "svd"}], ids=["channel", "mini", "svd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_gradient_of_zeros_limits_nothing(projection, at, dtype):
    ours, theirs = Model(dtype), Model(dtype)
    optimizer, reference = build(ours, **projection), by_hand(theirs, projection)
    for step in range(7):
        for model, stepped in ((ours, optimizer), (theirs, reference)):
            gradients(model, step)
            if step == at:
                zero_gradients(model)
            stepped.step()
        if step == at:
            for target in (theirs[0], theirs[2]):
                del reference.state[target.weight]["scaled_grad"]  # as before the first step
        if step == at + 1:
            ours, optimizer = resumed(ours, optimizer, dtype, **projection)
    assert_same(ours, theirs)


def test_only_weights_with_a_gradient_of_zeros_lose_their_limit():
    ours, theirs = Model(), Model()
    optimizer, reference = build(ours), by_hand(theirs)
    for step in range(6):
        for model, stepped in ((ours, optimizer), (theirs, reference)):
            gradients(model, step)
            if step == 2:
                model[0].weight.grad.zero_()
            stepped.step()
        for model in (ours, theirs):
            model[0].load_state_dict(Model()[0].state_dict())
    assert torch.equal(ours[2].weight, theirs[2].weight)


def test_the_bare_class_stops_after_a_gradient_of_zeros():
    """When this fails, `factory._lift_limits_of_zero` is not needed any more."""
    moves = []
    for make in (build, by_hand):
        model = Model()
        optimizer = make(model, weight_decay=0.0)
        gradients(model, 0)
        zero_gradients(model)
        optimizer.step()
        before = weights(model)["0.weight"]
        train(model, optimizer, range(1, 20))
        moves.append((model[0].weight - before).abs().max().item())
    assert moves[0] > 1e-2
    assert moves[1] < 1e-8


@both_projections
def test_the_projection_takes_only_the_memory_of_its_rank(proj):
    model = Model()
    optimizer = build(model, proj=proj)
    train(model, optimizer, [0])
    matrix = projector(optimizer, model[0].weight).ortho_matrix
    assert matrix.untyped_storage().nbytes() == 4 * 24 * 4


def test_an_svd_projector_is_saved_by_rows_and_comes_back_with_its_strides():
    """`dist.broadcast` sends memory as it lies, and products round by the order of strides."""
    model, fresh = Model(), Model()
    optimizer, again = build(model, proj="svd"), build(fresh, proj="svd")
    train(model, optimizer, range(2))
    saved = through_a_file(optimizer.state_dict())
    matrices = [s["projector"] for s in saved["state"].values() if "projector" in s]
    assert matrices
    assert all(matrix.is_contiguous() for matrix in matrices)
    fresh.load_state_dict(model.state_dict())
    again.load_state_dict(saved)
    strides = [
        [s["projector"].ortho_matrix.stride() for s in each.state.values() if "projector" in s]
        for each in (optimizer, again)
    ]
    assert strides[0] == strides[1]
    assert_same(train(model, optimizer, range(2, 6)), train(fresh, again, range(2, 6)))


def test_the_bare_projector_keeps_the_whole_factor():
    """When this fails, `factory.SvdProjector` is not needed any more."""
    bare = GaLoreProjector(4)
    bare.project(torch.randn(40, 24), 0)
    assert bare.ortho_matrix.untyped_storage().nbytes() == 24 * 24 * 4


@pytest.mark.parametrize("precision", sorted(SPEC.precisions))
@every_projection
def test_every_weight_trains_in_every_precision(projection, precision):
    model = Model(DTYPES.get(precision, torch.float32))
    before = weights(model)
    optimizer = build(model, **projection, precision=precision, weight_decay=0.0)
    mixed = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16-mixed")
    losses = []
    inputs = torch.randn(8, 24, generator=torch.Generator().manual_seed(0)).to(before["0.weight"])
    for _ in range(20):
        model.zero_grad()
        with torch.autocast("cpu", dtype=mixed, enabled=mixed is not None):
            loss = (model(inputs).float() - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert moved(model, before) == set(before)
    assert losses[-1] < 0.5 * losses[0]


def test_fp16_weights_are_refused():
    with pytest.raises(hub.PrecisionError, match="fp16"):
        build(Model(torch.float16))


def test_the_bare_class_does_not_train_fp16_weights():
    """When this fails, `apollo_adamw` may declare fp16."""
    model = train(model := Model(torch.float16), by_hand(model), range(20))
    assert not all(parameter.isfinite().all() for parameter in model.parameters())


def test_parameters_without_a_gradient_stay_and_can_come_back():
    model, other = Model(), Model()
    optimizer, reference = build(model), by_hand(other)
    before = weights(model)
    for step in range(6):
        for trained, stepped in ((model, optimizer), (other, reference)):
            gradients(trained, step)
            if step % 2 == 0:
                trained[0].weight.grad = None
            stepped.step()
        assert ("0.weight" in moved(model, before)) == (step > 0)
    assert_same(model, other)


def test_decay_reaches_exactly_the_decayed_parameters():
    model = Model()
    before = weights(model)
    optimizer = build(model, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert moved(model, before) == {"0.weight", "2.weight", "3.weight"}
    for name in ("0.weight", "3.weight"):
        expected = before[name] * (1 - 0.01 * 0.5)
        torch.testing.assert_close(model.get_parameter(name), expected)


def test_arguments_reach_every_group_and_projections_only_low_rank_ones():
    optimizer = build(Model(), correct_bias=False)
    for group in optimizer.param_groups:
        assert {key: group[key] for key in OWN} == OWN
        assert group["correct_bias"] is False
        low_rank = {key: group[key] for key in LOW_RANK if key in group}
        assert low_rank == (LOW_RANK if group["name"].startswith("low_rank") else {})


def test_updates_follow_the_learning_rate_that_a_schedule_writes():
    model = Model()
    optimizer = build(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step % 2))
    for step in range(4):
        before = weights(model)
        train(model, optimizer, [step])
        assert bool(moved(model, before)) == (step % 2 == 1)
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.0] * 3


def test_a_closure_may_call_backward():
    model, other = Model(), Model()
    optimizer = build(model)
    steps = iter(range(2))

    def closure():
        gradients(model, next(steps))
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert optimizer.step(closure=closure) == 7.0
    assert_same(model, train(other, build(other), range(2)))


def test_the_bare_class_cannot_take_a_closure():
    """When this fails, `factory._enable_grad_in_closure` is not needed any more."""
    model = Model()
    with pytest.raises(RuntimeError, match="does not require grad"):
        by_hand(model).step(lambda: gradients(model, 0))


@every_projection
def test_neither_building_nor_training_draws_from_torchs_generator(projection):
    model = Model()
    before = torch.get_rng_state()
    optimizer = build(model, **projection)
    assert torch.equal(torch.get_rng_state(), before)
    train(model, optimizer, range(4))  # a new projection in step 3
    model, optimizer = resumed(model, optimizer, **projection)
    train(model, optimizer, range(4, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_torchs_seed_has_no_part_in_projections():
    models = [Model(), Model()]
    for seed, model in enumerate(models):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            train(model, build(model), range(4))
    assert_same(*models)


def test_each_projection_is_drawn_from_the_seed_that_follows():
    model = Model()
    optimizer = build(model)
    train(model, optimizer, range(3))
    first = projector(optimizer, model[0].weight).drawn_from
    train(model, optimizer, [3])
    assert projector(optimizer, model[0].weight).drawn_from == next_seed(first)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 4.5}, "integer"),
        ({"update_proj_gap": 0}, "update_proj_gap"),
        ({"scale": 0.0}, "scale"),
        ({"proj": "fourier"}, "'svd'"),
        ({"proj_type": "full"}, "reverse_std"),
        ({"proj_type": "reverse_std"}, "scale_type='tensor'"),
        ({"scale_type": "row"}, "'channel'"),
        ({"betas": (0.9, 1.0)}, "less than 1"),
        ({"lr": -1.0}, "greater than or equal to 0"),
        ({"no_deprecation_warning": True}, "no argument 'no_deprecation_warning'"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(hub.OptimArgsError, match=says):
        build(Model(), **arguments)


@pytest.mark.parametrize(
    ("proj_type", "where"), [("right", "2"), ("left", "0")], ids=["right", "left"]
)
def test_a_projection_of_the_channels_that_are_scaled_is_refused(proj_type, where):
    model = Model()
    before = weights(model)
    with pytest.raises(hub.OptimArgsError, match="larger side of a") as refused:
        build(model, proj_type=proj_type)
    assert refused.value.where == where
    assert "scale_type='tensor'" in refused.value.fix
    assert not moved(model, before)


def test_the_rows_of_a_square_weight_are_its_channels():
    def square(proj_type):
        model = nn.Sequential(nn.Linear(8, 8))
        return build(model, "all-linear", proj_type=proj_type)

    square("right")
    with pytest.raises(hub.OptimArgsError, match="8x8"):
        square("left")


@pytest.mark.parametrize("proj_type", ["right", "left", "reverse_std"])
def test_the_bare_class_fails_at_those(proj_type):
    model = Model()
    with pytest.raises(RuntimeError, match="must match the size"):
        train(model, by_hand(model, {"proj_type": proj_type}), [0])


@pytest.mark.parametrize(
    ("proj", "error"), [("random", NotImplementedError), ("svd", AttributeError)]
)
def test_the_bare_class_cannot_project_both_sides(proj, error):
    """When this fails, `proj_type` may have the value "full"."""
    model = Model()
    full = {"proj": proj, "proj_type": "full", "scale_type": "tensor"}
    with pytest.raises(error):
        train(model, by_hand(model, full), range(2))


@pytest.mark.parametrize(("rank", "told"), [(25, True), (24, True), (23, False)])
def test_a_rank_that_is_not_low_is_told_and_trains(rank, told):
    """What it trains to is compared with the bare class above, for each of `PROJECTIONS`."""
    optimizer = build(Model(), rank=rank)
    expected = (
        f"rank={rank} is not below the smaller side of 2 of 2 target weights, such as 0.weight"
    )
    assert told == any(f.what.startswith(expected) for f in optimizer.hub_plan.findings)


def test_rules_set_ranks():
    model = Model()
    rules = {r"2\.weight": {"rank": 2, "scale": 8.0, "update_proj_gap": 1}}
    optimizer = build(model, rank=24, param_rules=rules)
    train(model, optimizer, [0])
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (40, 24)
    assert optimizer.state[model[2].weight]["exp_avg"].shape == (2, 40)
    fresh, continued = resumed(model, optimizer, rank=24, param_rules=rules)
    assert_same(train(fresh, continued, range(1, 4)), train(model, optimizer, range(1, 4)))


def test_what_a_rule_sets_for_projections_does_not_reach_other_parameters():
    model = Model()
    optimizer = build(model, param_rules={"2": {"rank": 2}})
    plain = [g for g in optimizer.param_groups if "low_rank" not in g["name"]]
    assert not any("rank" in group for group in plain)
    train(model, optimizer, range(2))


def test_rules_that_set_projections_of_nothing_are_refused():
    with pytest.raises(hub.OptimArgsError, match="rank cannot be set") as refused:
        build(Model(), param_rules={r"3\.weight": {"rank": 2}})
    assert "3" in refused.value.where


def test_rules_are_held_to_the_shapes():
    findings = build(Model(), param_rules={r"2\.weight": {"rank": 30}}).hub_plan.findings
    says = "rank=30 is not below the smaller side of 1 of 2 target weights"
    assert any(says in finding.what for finding in findings)
    with pytest.raises(hub.OptimArgsError, match="larger side"):
        build(Model(), param_rules={r"2\.weight": {"proj_type": "right"}})


def test_a_checkpoint_of_another_projection_is_refused():
    model = Model()
    optimizer = build(model)
    train(model, optimizer, [0])
    other = build(Model(), rank=2)
    with pytest.raises(hub.CheckpointError, match="rank 4 → 2"):
        other.load_state_dict(optimizer.state_dict())


def test_a_gradient_that_is_not_finite_spoils_no_checkpoint_of_svd():
    model = Model()
    optimizer = build(model, proj="svd")
    gradients(model, 0)
    model[0].weight.grad[0, 0] = float("nan")
    with pytest.raises(torch.linalg.LinAlgError):
        optimizer.step()
    fresh, continued = resumed(model, optimizer, proj="svd")
    assert_same(train(fresh, continued, range(2)), train(model, optimizer, range(2)))


def test_it_trains_sharded_models_as_one_process_does(tmp_path):
    script = pathlib.Path(__file__).with_name("sharded.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path / "store"])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]


def test_the_hooks_import_neither_torch_nor_apollo_torch():
    code = (
        "import sys, hub_apollo.hooks\n"
        "assert not {'torch', 'apollo_torch', 'hub_apollo.factory'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
