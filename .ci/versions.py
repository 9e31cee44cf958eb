"""The unit tests with the oldest promised and the newest versions of PyTorch, Triton and NumPy.

    python .ci/versions.py [--pytest "tests/kernels"] [oldest | newest | "torch==2.13.0 triton==3.6.0"] ...

An environment is made for each set of versions, in build/versions, with the versions of constraints.txt for
everything else. TORCH_INDEX=URL names an index to prefer for PyTorch; without one the newest may bring CUDA
along, gigabytes of it. Status 1 where the tests failed with one of the sets.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "versions"
SETS = {
    # The lower bounds of the distributions. (Triton 3.6's interpreter cannot take NumPy 2.3.)
    "oldest": "torch==2.11.* triton==3.6.* numpy==2.0.*",
    "newest": "torch triton numpy",
}


def other_pins(chosen: list[str]) -> str:
    """constraints.txt without the packages that are chosen here."""
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in chosen]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if re.split(r"==", line)[0] not in names)


def tests_pass(versions: str, asked: str) -> bool:
    """Makes the environment; whether pytest, asked this, succeeds in it."""
    chosen = versions.split()
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    (FOLDER / "constraints.txt").write_text(other_pins(chosen), encoding="utf-8")
    python = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    index = os.environ.get("TORCH_INDEX")
    options = ["--extra-index-url", index] if index else []
    install = [python, "-m", "pip", "install", "--quiet", *options, "-c", FOLDER / "constraints.txt", *chosen]
    subprocess.run([*install, "-e", "./kernels", "-e", ".[book,experiments,dev]"], cwd=ROOT, check=True)
    shown = "import numpy, torch, triton; print('torch', torch.__version__, 'triton', triton.__version__,"
    subprocess.run([python, "-c", f"{shown} 'numpy', numpy.__version__, flush=True)"], check=True)
    surroundings = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *shlex.split(asked)]
    return subprocess.run(command, cwd=ROOT, env=surroundings, check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=list(SETS), help="oldest, newest, or requirements")
    parser.add_argument("--pytest", default="-n 2 tests/kernels tests/stn", help="what pytest is asked")
    arguments = parser.parse_args()
    failed = []
    for name in arguments.sets:
        print(f"{name}: {SETS.get(name, name)}", flush=True)
        if not tests_pass(SETS.get(name, name), arguments.pytest):
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
