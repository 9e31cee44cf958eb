"""Runs the kernels' tests compiled, on the GPU that is there, and keeps a note of what passed.

    python kernels/benchmarks/gpu_test.py [--seconds N] [--again] [--smoke]

Test file after test file; then the memory checker, where compute-sanitizer is installed; then the book's
chapters, where nbval is. The same command goes on where it was cut off, or with what failed. `gpu_bench.py`
measures only a library whose tests have all passed here in its present state. No virtual environment is
needed: PyTorch, Triton and pytest are enough (pytest-xdist makes it quicker).
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import results

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "kernels"
STATE = results.FOLDER / "unkept"
NO_TESTS = 5  # pytest's exit code where nothing was selected
# Masks, odd sizes, strides and coordinates that are not finite: where an access could leave its tensor.
CHECKED_FOR_MEMORY = ("test_exact.py", "test_layouts.py", "test_tiling.py")
Step = tuple[str, list[str], dict[str, str]]


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def pytest(*arguments: str, jobs: int = 1) -> list[str]:
    parallel = ["-n", str(jobs)] if jobs > 1 and installed("xdist") else []
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *parallel, *arguments]


def steps(jobs: int, smoke: bool) -> Iterator[Step]:
    """Name, command and additional environment of each."""
    files = sorted(TESTS.glob("test_*.py"))
    if smoke:
        yield "test_exact.py", pytest("-m", "gpu", str(TESTS / "test_exact.py")), {}
        return
    for path in files:
        yield path.name, pytest("-m", "gpu", str(path), jobs=jobs), {}
    if shutil.which("compute-sanitizer"):
        sanitizer = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "1"]
        chosen = [str(TESTS / name) for name in CHECKED_FOR_MEMORY]
        # PyTorch would hand out parts of larger allocations, beyond which the checker sees nothing wrong.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        yield "memory checker", sanitizer + pytest("-m", "gpu", "-x", *chosen), environment
    if installed("nbval") and installed("ipykernel"):
        chapters = ROOT / "chapters"
        notebooks = sorted(map(str, (*chapters.glob("*.ipynb"), *chapters.glob("solutions/*.ipynb"))))
        options = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={chapters / 'sanitize.cfg'}"]
        command = pytest(*options, "--nbval-cell-timeout=600", *notebooks, jobs=min(jobs, 4))
        yield "chapters", command + (["--dist", "loadscope"] if "-n" in command else []), {}


def fingerprint() -> str:
    """Of the library and its tests."""
    digest = hashlib.sha256(results.sources().encode())
    for path in sorted(TESTS.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def state_file(device: str) -> Path:
    return STATE / f"tested-{results.file_name(device)}"


def passed(device: str) -> dict[str, float]:
    """Steps that passed here in the present state of the code, with their seconds."""
    path = state_file(device)
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict(state["passed"]) if state.get("fingerprint") == fingerprint() else {}


def is_green(device: str) -> bool:
    done = passed(device)
    return all(name in done for name, *_ in steps(jobs=1, smoke=False))


def run(device: str, deadline: float, jobs: int, smoke: bool) -> int:
    done = passed(device)
    failed = []
    for name, command, environment in steps(jobs, smoke):
        if name in done:
            print(f"{name}: passed before, in {done[name]:.0f} s", flush=True)
            continue
        if time.monotonic() > deadline:
            print("Out of time; what passed is kept. The same command goes on.")
            return 75
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        paths = os.pathsep.join([str(ROOT / "kernels"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        code = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, **environment}
        ).returncode
        seconds = time.monotonic() - start
        if code in (0, NO_TESTS):
            done[name] = round(seconds, 1)
            results.write(state_file(device), {"fingerprint": fingerprint(), "passed": done})
        else:
            failed.append(name)
        print(f"{name}: {'passed' if code in (0, NO_TESTS) else 'FAILED'}, {seconds:.0f} s", flush=True)
    for name, there in (
        ("compute-sanitizer", shutil.which("compute-sanitizer")),
        ("nbval", installed("nbval")),
    ):
        if not there and not smoke:
            print(f"Left out: what needs {name}, which is not installed.")
    print(f"Failed: {', '.join(failed)}" if failed else f"All passed on {device}.")
    return 1 if failed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=520, help="start nothing after so many; 520")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 12), help="processes")
    parser.add_argument("--again", action="store_true", help="also what has passed before")
    parser.add_argument("--smoke", action="store_true", help="one test file, interpreted, on the CPU")
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        sys.exit("no GPU: --smoke runs one test file in Triton's interpreter")
    device = "smoke" if arguments.smoke else torch.cuda.get_device_name()
    if arguments.again:
        state_file(device).unlink(missing_ok=True)
    deadline = time.monotonic() + arguments.seconds
    sys.exit(run(device, deadline, arguments.jobs, arguments.smoke))


if __name__ == "__main__":
    main()
