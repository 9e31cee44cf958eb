"""Plants each fault of `faults.py` in a copy of the kernels and runs the fast subset of the tests on it.

    python tests/kernels/run_faults.py [--only WORD] [--whole]

The fast subset first runs on the kernels as they are, and must pass. Then, for each fault, the test that
`faults.py` names must fail; with --whole, the whole subset runs on each, and what fails is printed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults import FAULTS, Fault

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels"
FAST = sorted({fault.caught_by for fault in FAULTS})


def failing(tests: list[str], kernels: Path, *options: str) -> list[str]:
    """The tests that fail, or all of them where pytest itself does, with the package of another folder."""
    environment = {**os.environ, "PYTHONPATH": str(kernels), "OMP_NUM_THREADS": "1"}
    ids = [str(HERE / test) for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *options, *ids]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1])
    if done.returncode == 0:
        return []
    return re.findall(r"^(?:FAILED|ERROR) \S*tests/kernels/(\S+)", done.stdout, re.MULTILINE) or tests


def plant(fault: Fault, kernels: Path) -> None:
    path = kernels / "stn_kernels" / fault.file
    source = path.read_text()
    if source.count(fault.old) != 1:
        sys.exit(f"{fault.file} holds {fault.old!r} {source.count(fault.old)} times")
    path.write_text(source.replace(fault.old, fault.new))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="faults whose description or file holds this")
    parser.add_argument("--whole", action="store_true", help="the whole fast subset on each fault")
    arguments = parser.parse_args()
    chosen = [f for f in FAULTS if arguments.only in f.what or arguments.only in f.file]

    start = time.monotonic()
    broken = failing(FAST, KERNELS)
    if broken:
        sys.exit(f"without any fault these fail: {broken}")
    print(f"without faults, {len(FAST)} tests pass in {time.monotonic() - start:.0f} s")
    survivors = 0
    for number, fault in enumerate(chosen, 1):
        with tempfile.TemporaryDirectory() as folder:
            kernels = Path(shutil.copytree(KERNELS, Path(folder) / "kernels"))
            plant(fault, kernels)
            found = failing(FAST, kernels) if arguments.whole else failing([fault.caught_by], kernels, "-x")
        caught = any(name.startswith(fault.caught_by) for name in found)
        survivors += not caught
        by = ", ".join(found) if arguments.whole else fault.caught_by
        verdict = f"caught by {by}" if caught else "NOT CAUGHT"
        print(f"{number:2}/{len(chosen)}  {fault.what}: {verdict}", flush=True)
    sys.exit(f"{survivors} faults were not caught" if survivors else 0)


if __name__ == "__main__":
    main()
