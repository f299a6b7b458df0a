"""One row an optimizer: its class, and what is wrong with its spec."""

from dataclasses import replace
from functools import partial

from pydantic import BaseModel, ConfigDict, field_validator

from hub.arguments import Arguments, Betas, Eps, LearningRate, WeightDecay
from hub.hookspecs import hookimpl
from hub.spec import OptimizerSpec, SchedulerSpec, Sharding, Trait


class AdamArguments(Arguments):
    """Arguments."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    weight_decay: WeightDecay = 0.01


class EpsArguments(AdamArguments):
    """Arguments, one of which is not put into the groups."""

    eps: Eps = 1e-8


class TakesAnything(BaseModel):
    """Checks nothing."""

    model_config = ConfigDict(extra="ignore")
    lr: object = 1e-3
    betas: object = (0.9, 0.999)
    weight_decay: object = 0.01


class Crashes(AdamArguments):
    """Fails with an exception of its own."""

    @field_validator("lr", mode="before")
    @classmethod
    def _parse(cls, value):
        if isinstance(value, int | float):
            return value
        raise RuntimeError("boom")


BASE = OptimizerSpec(
    name="",
    summary="Broken on purpose",
    arguments=AdamArguments,
    per_group=frozenset({"lr", "weight_decay", "betas"}),
)
PER_PARAMETER = frozenset({Trait.PER_PARAMETER})
MODES = frozenset({Trait.TRAIN_EVAL_MODES})
ELEMENTWISE = {"sharding": Sharding(kind="native", elementwise=True)}
MATRICES = {
    "traits": frozenset({Trait.MATRICES_ONLY, Trait.ORTHOGONAL, Trait.PER_PARAMETER}),
    "target_modules": "all-linear",
    "rest": "plain",
}
BY_ROWS = {"sharding": Sharding(kind="rows")}
ROWS = {
    "no_class_of_its_package": ("Plain", {"package": "galore-torch"}),
    "keeps_its_first_lr": ("KeepsItsFirstLr", {}),
    "reads_the_first_lr": ("ReadsTheFirstLr", {}),
    "reads_the_first_betas": ("ReadsTheFirstBetas", {"traits": PER_PARAMETER}),
    "lacks_a_group_key": (
        "LacksAGroupKey",
        {"per_group": frozenset({"lr", "weight_decay", "betas", "eps"}), "arguments": EpsArguments},
    ),
    "routes_by_name": ("RoutesByName", {}),
    "changes_gradients": ("ChangesGradients", {}),
    "decays_everything": ("DecaysEverything", {}),
    "forgets_decay": ("ForgetsDecay", {}),
    "ignores_betas": ("IgnoresBetas", {}),
    "moves_frozen": ("MovesFrozen", {}),
    "moves_idle_parameters": ("MovesIdleParameters", {}),
    "forgets_on_load": ("ForgetsOnLoad", {}),
    "keeps_state_elsewhere": ("KeepsStateElsewhere", {}),
    "refuses_late_groups": ("RefusesLateGroups", {}),
    "forgets_late_state": ("ForgetsLateState", {}),
    "counts_outside_of_state": ("CountsOutsideOfState", {}),
    "pickles_an_object": ("PicklesAnObject", {}),
    "grows": ("Grows", {}),
    "takes_any_checkpoint": ("TakesAnyCheckpoint", {}),
    "loads_without_hooks": ("LoadsWithoutHooks", {}),
    "writes_into_checkpoints": ("WritesIntoCheckpoints", {}),
    "forgets_on_save": ("ForgetsOnSave", {}),
    "copies_itself": ("CopiesItself", {}),
    "loses_an_attribute": ("LosesAnAttribute", {}),
    "sees_the_last_micro_batch": ("SeesTheLastMicroBatch", {}),
    "hides_gradients": ("HidesGradients", {}),
    "evaluates_its_first_average": ("EvaluatesItsFirstAverage", {"traits": MODES}),
    "evaluates_training_weights": ("EvaluatesTrainingWeights", {"traits": MODES}),
    "does_not_come_back": ("DoesNotComeBack", {"traits": MODES}),
    "overflows_in_fp16": (
        "OverflowsInFp16",
        {"precisions": frozenset({"fp32", "bf16", "fp16", "fp64"})},
    ),
    "climbs": ("Climbs", {}),
    "claims_too_little": ("Plain", {"precisions": frozenset({"fp32", "bf16"})}),
    "draws_random_numbers": ("DrawsRandomNumbers", {}),
    "prints": ("Prints", {}),
    "marks_the_model": ("MarksTheModel", {}),
    "silences_everybody": ("SilencesEverybody", {}),
    "takes_any_input": ("TakesAnyInput", {"arguments": TakesAnything}),
    "crashes_on_bad_input": ("Plain", {"arguments": Crashes}),
    "counts_by_the_call": ("CountsByTheCall", {"traits": PER_PARAMETER}),
    "keeps_gradients": ("KeepsGradients", {"traits": PER_PARAMETER}),
    "plain": ("Plain", {}),
    "skips_idle_gradients": ("SkipsIdleGradients", {}),
    "steps_by_itself": ("StepsByItself", {"traits": PER_PARAMETER}),
    "frees_gradients": ("FreesGradients", {}),
    "ignores_closures": ("IgnoresClosures", {}),
    "ignores_named_closures": ("IgnoresNamedClosures", {}),
    "calls_closures_twice": ("CallsClosuresTwice", {}),
    "draws_in_its_step": ("DrawsInItsStep", {}),
    "norms_each_shard": ("NormsEachShard", BY_ROWS),
    "norms_whole_tensors": ("NormsWholeTensors", ELEMENTWISE),
    "norms_pieces": ("NormsWholeTensors", {**ELEMENTWISE, "traits": PER_PARAMETER}),
    "straddles_blocks": (
        "StraddlesBlocks",
        {"sharding": Sharding(kind="rows", elementwise=True)},
    ),
    "needs_elements": ("NeedsElements", ELEMENTWISE),
    "fills_idle_shards": ("FillsIdleShards", ELEMENTWISE),
    "logs_on_the_first_rank": ("LogsOnTheFirstRank", ELEMENTWISE),
    "keeps_local_tensors": ("KeepsLocalTensors", ELEMENTWISE),
    "leaves_hooks": ("LeavesHooks", {"traits": PER_PARAMETER}),
    "orthogonalizes_by_name": ("OrthogonalizesByName", MATRICES),
    "keeps_aliases": ("KeepsAliases", {"traits": PER_PARAMETER}),
    "reads_the_state_of_others": ("ReadsTheStateOfOthers", {"traits": PER_PARAMETER}),
    "keeps_parameters": ("KeepsParameters", {}),
    "forgets_keys_of_groups": ("ForgetsKeysOfGroups", {}),
    "looks_at_its_company": ("LooksAtItsCompany", {"traits": PER_PARAMETER}),
}


SCHEDULES = {
    "needs_a_warmup": "NeedsAWarmup",
    "ignores_the_warmup": "IgnoresTheWarmup",
    "first_group_for_all": "FirstGroupForAll",
    "replaces_tensors": "ReplacesTensors",
    "resumes_from_the_groups": "ResumesFromTheGroups",
    "forgets_late_groups": "ForgetsLateGroups",
}


@hookimpl
def hub_register_schedulers():
    """Return all schedules."""
    return [
        SchedulerSpec(
            name=name,
            summary="Broken on purpose",
            arguments=Arguments,
            build=partial(_schedule, cls),
            needs_training_steps=True,
        )
        for name, cls in SCHEDULES.items()
    ]


def _schedule(cls, optimizer, warmup, total, _arguments):
    from hub_broken import schedules

    return getattr(schedules, cls)(optimizer, warmup, total)


@hookimpl
def hub_register_optimizers():
    """Return them all."""
    return [replace(BASE, name=name, **changes) for name, (_, changes) in ROWS.items()]


@hookimpl
def hub_build_optimizer(name, optim_args, context):
    """Build one."""
    from hub_broken import optimizers

    cls = getattr(optimizers, ROWS[name][0])
    extra = {"model": context.model} if name == "moves_frozen" else {}
    return cls(context.param_groups(), **extra, **optim_args.model_dump())
