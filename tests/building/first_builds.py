"""A program: eight threads make the first use of hub in this process, all at once.

    python tests/building/first_builds.py SEED

A ninth prints and logs meanwhile. What is wrong afterwards is written to standard error.
"""

import copy
import logging
import random
import sys
import threading
import warnings

import torch

THREADS = 8
SILENT = ("adamw_torch_4bit", "adamw_torch_8bit")
"""Those that compile their step, which takes a minute."""


def main(seed):
    before, listening = picture(), Listening()
    barrier = threading.Barrier(THREADS)
    chosen = random.Random(seed)
    names = chosen.sample(installed(), THREADS)
    names[0] = names[1]  # two threads want the same one
    calls = [chosen.choice((build, build, plan, estimate)) for _ in names]
    problems = []

    def work(call, name):
        barrier.wait()
        try:
            call(name)
        except BaseException as error:  # noqa: BLE001 - it is told
            problems.append(f"{call.__name__} {name}: {type(error).__name__}: {error}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what hub says about training a small model
        inside = picture()
        with listening:
            threads = [
                threading.Thread(target=work, args=pair) for pair in zip(calls, names, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        problems += differences(inside, picture(), "during")
        problems += listening.problems() + trained_otherwise()
    problems += differences(before, picture(), "after")
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return bool(problems)


def installed():
    from importlib.metadata import entry_points

    points = entry_points(group="hub.optimizers")
    return sorted({point.name for point in points} - set(SILENT))


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Linear(256, 256))


def arguments(name):
    import hub

    spec = hub.describe(name)
    targets = {"target_modules": "all-linear"} if hub.Trait.LOW_RANK in spec.traits else {}
    return {**targets, **spec.example_arguments}


MODEL = model()


def built(name):
    """Return a new model and its optimizer."""
    import hub

    own = copy.deepcopy(MODEL)
    optimizer = hub.build(name, own, **arguments(name))
    assert optimizer.hub_plan.optimizer == name
    return own, optimizer


def trained(own, optimizer):
    """Return a model's weights after two steps.

    In the main thread: bitsandbytes 0.50.2 compiles its steps on the CPU, and two threads that step
    at once may get other results, however they were built.
    """
    for _ in range(2):
        own(torch.ones(2, 256)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return own.state_dict()


BUILT = []


def build(name):
    BUILT.append((name, *built(name)))


def plan(name):
    import hub

    assert not hub.plan(name, copy.deepcopy(MODEL), **arguments(name)).refused


def estimate(name):
    import hub

    assert hub.estimate(name, copy.deepcopy(MODEL), **arguments(name)).total > 0


def picture():
    root = logging.getLogger()
    return {
        "stdout": sys.stdout,
        "stderr": sys.stderr,
        "the filters' list": warnings.filters,
        "the filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "what logging disables": root.manager.disable,
        "the root logger": (root.level, list(root.handlers), list(root.filters)),
        "the handlers' filters": [list(handler.filters) for handler in root.handlers],
    }


def differences(before, after, when):
    same = {key: after[key] is before[key] or after[key] == before[key] for key in before}
    for key in ("stdout", "stderr", "the filters' list"):
        same[key] = after[key] is before[key]
    return [f"{key} changed {when}: {after[key]}" for key in before if not same[key]]


class Listening(logging.Handler):
    """A thread that prints and logs a counter, and what arrives of it."""

    def __init__(self):
        super().__init__()
        self.logged, self.printed, self.said = [], [], 0
        self._thread = threading.Thread(target=self._talk)
        self._done = threading.Event()

    def emit(self, record):
        self.logged.append(record.getMessage())

    def write(self, text):
        self.printed.append(text)
        return len(text)

    def flush(self):
        pass

    def _talk(self):
        while not self._done.wait(0.002):
            sys.stdout.write(f"{self.said}\n")
            logging.getLogger("someone").warning("%d", self.said)
            self.said += 1

    def __enter__(self):
        self._stdout, sys.stdout = sys.stdout, self
        logging.root.addHandler(self)
        self._thread.start()

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()
        logging.root.removeHandler(self)
        sys.stdout = self._stdout

    def problems(self):
        expected = [str(number) for number in range(self.said)]
        heard = {"printed": "".join(self.printed).split(), "logged": self.logged}
        return [
            f"of {self.said} lines that another thread {how}, {len(lines)} arrived"
            for how, lines in heard.items()
            if lines != expected
        ]


def trained_otherwise():
    """Return a problem for each optimizer of a thread that differs from the main thread's."""
    return [
        f"{name} trains differently in a thread"
        for name, own, optimizer in BUILT
        for weights in [trained(own, optimizer)]
        if any(not torch.equal(weights[key], v) for key, v in trained(*built(name)).items())
    ]


if __name__ == "__main__":
    found = main(int(sys.argv[1]))
    logging.getLogger("transformers").warning("this is heard")
    sys.exit(found)
