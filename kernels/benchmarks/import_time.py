"""What `import stn_kernels` takes beyond PyTorch, beside Triton and Dynamo, which it leaves to the first use.

    python kernels/benchmarks/import_time.py [--repeats N]

Each in a process of its own, after `import torch`; the median, in seconds. The target is 0.1 s.
"""

import argparse
import statistics
import subprocess
import sys

MODULES = ("stn_kernels", "triton", "torch._dynamo")
PROGRAM = """
import importlib, sys, time
import torch
start = time.perf_counter()
importlib.import_module(sys.argv[1])
print(time.perf_counter() - start)
"""


def seconds(module: str) -> float:
    return float(subprocess.check_output([sys.executable, "-c", PROGRAM, module]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="processes for each module")
    repeats = parser.parse_args().repeats
    for module in MODULES:
        print(f"{module:14} {statistics.median(seconds(module) for _ in range(repeats)):.3f} s", flush=True)


if __name__ == "__main__":
    main()
