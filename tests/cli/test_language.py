"""The command line names options and commands, where the library names arguments and calls."""

import json
import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import hub
from hub.cli import app
from hub.cli.language import CALLS, OTHERWISE, SHARED, in_options

COMMANDS = get_command(app).commands
PYTHON = re.compile(
    r"hub\.\w|\w=['\"\[]|\br'|(?<![\w-])(target_modules|max_grad_norm|optim_args|num_warmup_steps"
    r"|num_training_steps|lr_scheduler|batch_size|sequence_length|contenders)\b"
)
"""What a program would write, and nobody types in a shell."""


def run(*arguments):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "1000"})


def context(command):
    return COMMANDS[command].make_context(command, ["x", "x", "x"][: _required(command)])


def _required(command):
    return sum(parameter.required for parameter in COMMANDS[command].params)


ERRORS = [
    ("list no_such_name", "did you mean|see `hub list`"),
    ("show adamw_toch", "did you mean adamw_torch"),
    ("show zzzzzzzz", "fix: see `hub list`"),
    ("show cosine", "pass it to `hub lr`, or choose one of `hub list`"),
    ("show lomo_layerwise", "use 'lomo'"),
    ("lr sgd", "pass it to `hub plan`, or choose one of `hub list`"),
    ("lr linea", "did you mean linear"),
    ("lr linear --warmup 2000", "use a smaller --warmup, or train longer"),
    ("lr cosine num_cycle=2", "did you mean 'num_cycles'"),
    ("lr cosine num_cycles", "where: key=value, character 1"),
    ("lr cosine num_cycles=x", "num_cycles is float"),
    ("lr warmup_stable_decay num_decay_steps=2000", "fix: use fewer"),
    ("lr linear --out curve.pdf", "where: --out"),
    ("plan galore_adamw", "--target-modules all-linear.* --target-modules attn --target-mo"),
    ("plan galore_adamw --target-modules xx", "where: --target-modules"),
    ("plan galore_adamw --target-modules (", "where: --target-modules"),
    ("plan galore_adamw --target-modules attn --target-modules xx", "--target-modules 'xx' match"),
    ("plan sgd --target-modules all-linear", "sgd does not accept --target-modules"),
    ("plan sgd --precision bf17", "--precision bf17 is unknown"),
    ("plan sgd --precision fp16", "does not train correctly in fp16"),
    ("plan sgd --optim-args lr=", "where: --optim-args, character 4"),
    ("plan sgd --optim-args lrr=1", "did you mean 'lr'"),
    ("plan sgd --max-grad-norm 0", "where: --max-grad-norm"),
    ("plan sgd --max-grad-norm nan", "where: --max-grad-norm"),
    ("plan sgd_layerwise --max-grad-norm 1", "clipping=exact .*or leave --max-grad-norm out"),
    ("plan sgd_layerwise --optim-args clipping=exact", "pass --max-grad-norm, or leave clipping"),
    ("plan sgd --model /no/such/folder", "where: /no/such/folder"),
    ("compare sgd --steps 0", "where: --steps"),
    ("compare sgd --batch-size 0", "--batch-size is 0"),
    ("compare sgd:lr=", "where: NAME:key=value, character 4"),
    ("compare sgd --sequence-length 1", "--sequence-length is 1"),
    ("compare sgd --max-grad-norm 0", "where: --max-grad-norm"),
    ("compare sgd --warmup-steps 3", "an --lr-scheduler, such as constant_with_warmup"),
    ("compare sgd --warmup-steps 300 --lr-scheduler linear", "where: --warmup-steps"),
    ("compare sgd --lr-scheduler adamw_torch", "`hub list`"),
    ("compare sgd --precision fp8", "where: --precision"),
    ("compare sgd --precision fp16-mixed", "bf16-mixed, or --device cuda"),
    ("compare sgd --device tpu", "where: --device"),
    ("compare sgd --device cuda:x", "where: --device"),
    ("compare sgd --data /no/such/text", "where: /no/such/text"),
    ("compare sgd sgd", "name it once"),
    ("compare :lr=1", "NAME:key=value"),
    ("compare adamw_toch", "did you mean adamw_torch"),
    ("check adamw_toch", "did you mean adamw_torch"),
    ("check sgd --device tpu", "where: --device"),
    ("convert-checkpoint galore_adamw no.pt new.pt", "confirm that you trust it: --trust"),
    ("convert-checkpoint galore_adamw no.pt new.pt --trust", "check the path"),
    ("convert-checkpoint galore_adamw no.pt new.pt --names no.json", "where: --names"),
    ("convert-checkpoint galore_adamw no.pt no/such/new.pt", "where: no/such"),
    ("convert-checkpoint nobody no.pt new.pt", "hub list"),
]


@pytest.mark.parametrize(("line", "says"), ERRORS, ids=[line for line, _ in ERRORS])
def test_an_error_speaks_of_options(line, says):
    result = run(*line.split(" "))
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert re.search(says, result.output), result.output
    assert not PYTHON.search(result.output), result.output


def test_what_a_training_says_speaks_of_options():
    arguments = ["sgd:lrr=1", "sgd_layerwise", "--steps", "1", "--batch-size", "1"]
    arguments += ["--sequence-length", "16", "--max-grad-norm", "1"]
    result = run("compare", *arguments)
    assert result.exit_code == 1
    assert "did you mean 'lr'" in result.output
    assert "--max-grad-norm" in result.output
    assert not PYTHON.search(result.output)


def test_findings_speak_of_options():
    line = ["plan", "sgd", "--precision", "bf16", "--optim-args", "lr=1e-9"]
    output = run(*line).output
    assert "train with --precision bf16-mixed" in output
    assert not PYTHON.search(output[output.index("warn: ") :])
    plan = json.loads(run(*line, "--json").output)
    assert "precision='bf16-mixed'" in str(hub.Plan.from_dict(plan))


@pytest.mark.parametrize(
    ("text", "command", "says"),
    [
        ('fix: target_modules="all-linear"', "plan", "fix: --target-modules all-linear"),
        ('target_modules=["a.b", "c d"]', "plan", "--target-modules a.b --target-modules 'c d'"),
        ("max_grad_norm=1.0, or", "compare", "--max-grad-norm 1.0, or"),
        ("leave target_modules out", "show", "leave target_modules out"),
        ("the precision of bf16", "plan", "the precision of bf16"),
        ("x\n  where: precision", "plan", "x\n  where: --precision"),
        ("sgd has warmup_steps=3", "compare", "sgd has warmup_steps=3"),
        ("x\n    optim_args\n    ^", "plan", "x\n    optim_args\n    ^"),
        ('such as r".*\\.mlp"', "plan", "such as '.*\\.mlp'"),
        ("num_warmup_steps", "lr", "--warmup"),
        ("build it with hub.build_scheduler", "lr", "build it with `hub lr`"),
    ],
)
def test_words(text, command, says):
    assert in_options(text, context(command)) == says


def test_the_words_are_options_and_commands():
    for command, words in OTHERWISE.items():
        helped = run(command, "--help").output
        assert all(word in helped for word in words.values()), command
    assert {instead.strip("`").removeprefix("hub ") for instead in CALLS.values()} <= set(COMMANDS)
    assert set(SHARED) <= {p.name for p in COMMANDS["plan"].params}
