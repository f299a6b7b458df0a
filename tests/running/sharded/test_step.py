"""Steps of sharded parameters, by two ranks."""

from functools import partial

import pytest
from helpers import sharded

from hub.testing.ranks import shared_ranks

EVERY_KIND = ["adamw_torch", "adafactor", "galore_adamw", "lion_32bit", "stable_adamw"]
CASES = [
    *((sharded.many_buckets, name) for name in ("adafactor", "stable_adamw", "galore_adamw_8bit")),
    (sharded.rows_of_whole_blocks, "adamw_8bit"),
    *((sharded.first_step_is_clipped, name) for name in ("adamw_torch", "adafactor")),
    *((sharded.norm_before_the_first_step, name) for name in ("adamw_torch", "adafactor")),
    *((sharded.adopted_after_an_evaluation, name) for name in EVERY_KIND),
    *((sharded.unfrozen_later, name) for name in ("adamw_torch", "adafactor", "stable_adamw")),
    *((sharded.detached, name) for name in (*EVERY_KIND, "adafactor_layerwise")),
    *((sharded.closures, name) for name in EVERY_KIND),
    *((sharded.with_a_schedule, name) for name in EVERY_KIND),
    *((sharded.state_of_one_process, name) for name in EVERY_KIND),
    *((sharded.ignored_parameters, name) for name in (*EVERY_KIND, "adamw_torch_fused")),
    *((sharded.tensor_parallel, name) for name in ("adafactor", "stable_adamw")),
    (sharded.failing_on_an_owner, "galore_adamw"),
]


@pytest.mark.parametrize(
    ("case", "name"), CASES, ids=[f"{case.__name__}-{name}" for case, name in CASES]
)
def test_two_ranks(case, name):
    assert shared_ranks(2).call(case, name) == [None, None]


@pytest.mark.parametrize("use_orig_params", [True, False])
@pytest.mark.parametrize(
    "name", [*EVERY_KIND, "adagrad", "schedule_free_sgd", "adafactor_layerwise"]
)
def test_fsdp1_after_the_build(name, use_orig_params):
    call = partial(sharded.flattened_after_the_build, use_orig_params=use_orig_params)
    first, second = shared_ranks(2).call(call, name)
    assert first == second
    trains = use_orig_params and name in ("adamw_torch", "lion_32bit")
    assert first == "equal" if trains else first.startswith("UnsupportedError: ")
