"""Runs the kernels' tests compiled, on the GPU that is there, and keeps a note of what passed.

    python kernels/benchmarks/gpu_test.py [--seconds N] [--again] [--smoke]

All test files; then the memory checker, where compute-sanitizer is installed; then the book's chapters,
where nbval is. The same command goes on with what failed, or with what there was no time for. `gpu_bench.py`
measures only a library whose test files have all passed here in its present state. No virtual environment is
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
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import results

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "kernels"
STATE = results.FOLDER / "unkept"
NO_TESTS = 5  # pytest's exit code where nothing was selected
OUT_OF_TIME = 75
# Masks, odd sizes, strides and coordinates that are not finite: where an access could leave its tensor.
CHECKED_FOR_MEMORY = ("test_exact.py", "test_layouts.py", "test_tiling.py")
Step = tuple[str, list[str], dict[str, str]]


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def pytest(*arguments: str, jobs: int = 1) -> list[str]:
    parallel = ["-n", str(jobs)] if jobs > 1 and installed("xdist") else []
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *parallel, *arguments]


def test_files(smoke: bool) -> list[Path]:
    return [TESTS / "test_exact.py"] if smoke else sorted(TESTS.glob("test_*.py"))


def steps(jobs: int, smoke: bool) -> Iterator[Step]:
    """After the test files: name, command and additional environment of each."""
    if smoke:
        return
    if shutil.which("compute-sanitizer"):
        sanitizer = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "1"]
        sanitizer += ["--target-processes", "all"]
        chosen = [str(TESTS / name) for name in CHECKED_FOR_MEMORY]
        # PyTorch would hand out parts of larger allocations, beyond which the checker sees nothing wrong.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        yield "memory checker", sanitizer + pytest("-m", "gpu", "-x", *chosen, jobs=jobs), environment
    if installed("nbval") and installed("ipykernel"):
        chapters = ROOT / "chapters"
        notebooks = sorted(map(str, (*chapters.glob("*.ipynb"), *chapters.glob("solutions/*.ipynb"))))
        options = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={chapters / 'sanitize.cfg'}"]
        command = pytest(*options, "--nbval-cell-timeout=600", *notebooks, jobs=jobs)
        yield "chapters", command + (["--dist", "loadscope"] if "-n" in command else []), {}


def fingerprint(step: str) -> str:
    """Of the library and what the step runs: a test file and what test files share, or all of them."""
    digest = hashlib.sha256(results.sources().encode())
    for path in sorted(TESTS.glob("*.py")):
        if path.name == step or not (step.startswith("test_") and path.name.startswith("test_")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def state_file(device: str) -> Path:
    return STATE / f"tested-{results.file_name(device)}"


def passed(device: str) -> dict[str, float]:
    """Steps that passed here in the present state of the code, with their seconds."""
    path = state_file(device)
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {step: found["seconds"] for step, found in state.items() if found["of"] == fingerprint(step)}


def is_green(device: str) -> bool:
    """Whether all test files have passed: the code computes what it should."""
    done = passed(device)
    return all(path.name in done for path in test_files(smoke=False))


def call(command: Sequence[str], environment: dict[str, str], seconds: float) -> int:
    """A step's exit code, or that of one that was out of time."""
    paths = os.pathsep.join([str(ROOT / "kernels"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return OUT_OF_TIME


def call_tests(files: Sequence[Path], jobs: int, seconds: float) -> tuple[int, dict[str, float]]:
    """The exit code of one session for all files, whose workers start once; the files that passed, with the
    seconds of their tests."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = pytest("-m", "gpu", f"--junit-xml={report}", *map(str, files), jobs=jobs)
        code = call(command, {}, seconds)
        if not report.exists():
            return code, {}
        tests = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    failed: set[str] = set()
    spent = dict.fromkeys((path.name for path in files), 0.0)
    for test in tests:
        # "tests.kernels.test_exact", or where a module could not be imported "" and its name
        words = f"{test.get('classname')}.{test.get('name')}".split(".")
        name = f"{next(word for word in words if f'{word}.py' in spent)}.py"
        spent[name] += float(test.get("time", 0))
        if test.find("failure") is not None or test.find("error") is not None:
            failed.add(name)
    # Another code is not of tests that failed: an interruption, say, after which tests are missing.
    complete = code in (0, 1, NO_TESTS)
    return code, {n: round(s, 1) for n, s in spent.items() if n not in failed and complete}


def run(device: str, deadline: float, jobs: int, smoke: bool) -> int:
    done = passed(device)
    failed = []

    def keep() -> None:
        state = {step: {"seconds": seconds, "of": fingerprint(step)} for step, seconds in done.items()}
        results.write(state_file(device), state)

    def passed_before(name: str) -> bool:
        if name in done:
            print(f"{name}: passed before, in {done[name]:.0f} s", flush=True)
        return name in done

    files = [path for path in test_files(smoke) if not passed_before(path.name)]
    if files:
        code, now = call_tests(files, jobs, deadline - time.monotonic())
        done |= now
        keep()
        failed += [path.name for path in files if path.name not in now]
        if code == OUT_OF_TIME:
            print("Out of time before the tests' end: give them more --seconds.")
            return OUT_OF_TIME
        for path in files:
            print(f"{path.name}: {f'passed, {now[path.name]:.0f} s' if path.name in now else 'FAILED'}")
    for name, command, environment in steps(jobs, smoke):
        if passed_before(name):
            continue
        start = time.monotonic()
        code = call(command, environment, deadline - start) if start < deadline else OUT_OF_TIME
        if code == OUT_OF_TIME:
            print(f"{name}: out of time; what passed is kept. The same command goes on.")
            return OUT_OF_TIME
        seconds = time.monotonic() - start
        if code in (0, NO_TESTS):
            done[name] = round(seconds, 1)
            keep()
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
    parser.add_argument("--seconds", type=float, default=520, help="stop after so many; 520")
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
