"""Compare the cold start of listing all optimizers with only reading entry points.

Prints the ratio of the medians over fresh processes that take turns.
"""

import statistics
import subprocess
import sys
import time

RUNS = 25
READ = "from importlib.metadata import entry_points; entry_points(group='x')"
LIST = (
    "import hub, sys; hub.list_optimizers(); "
    "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
)


def seconds(program: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - start


def main() -> None:
    for program in (READ, LIST):
        seconds(program)  # fills the file cache
    times = [(seconds(READ), seconds(LIST)) for _ in range(RUNS)]
    read, listed = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"entry points alone  {read * 1e3:7.1f} ms")
    print(f"hub.list_optimizers {listed * 1e3:7.1f} ms  ratio {listed / read:.2f} (at most 1.6)")


if __name__ == "__main__":
    main()
