"""The chapters with kernels run where Triton cannot be imported, and show what they show with it.

Chapter 12, which trains for a minute and has one marked cell, is left out.
"""

import os
import re
import subprocess
import sys

import pytest

import build
from stn.without_triton import MARK

ROOT = build.CHAPTERS.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
NBVAL = re.search(r"^nbval = (.*)$", MAKEFILE, re.MULTILINE)[1].split()
MARKED = {
    source.stem
    for source in (build.CHAPTERS / "sources").glob("*.py")
    if MARK in source.read_text(encoding="utf-8").splitlines()
}
LONG = {"12_the_tps_transformer"}


@pytest.fixture
def environment(tmp_path):
    """Of a Python that has no Triton."""
    (tmp_path / "sitecustomize.py").write_text('import sys\n\nsys.modules["triton"] = None\n')
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def test_marked_cells_are_replayed_and_all_others_run(environment):
    assert subprocess.run(
        [sys.executable, "-c", "import triton"], env=environment, capture_output=True, check=False
    ).returncode
    names = sorted(MARKED - LONG)
    notebooks = [build.CHAPTERS / folder / f"{name}.ipynb" for name in names for folder in ("", "solutions")]
    command = [sys.executable, "-m", "pytest", "-q", *NBVAL, *notebooks]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(names) == 4
