"""The prose of READMEs and docstrings is British, and nothing is misspelt in any English.

test_hygiene.py looks at the chapters' prose.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import spelling

ROOT = Path(__file__).parents[2]
FOLDERS = ("chapters", "kernels", "stn", "tests")
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "README.md")
NAMES = (*PAGES, "CITATION.cff", "LICENSE", "Makefile", "pyproject.toml")
READMES = [
    *(ROOT / name for name in PAGES),
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")),
]
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def named(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", READMES, ids=named)
def test_readmes_are_british(path):
    assert list(spelling.american(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_are_british(folder):
    files = [path for path in CODE if named(path).startswith(folder)]
    found = {
        named(path): problems
        for path in files
        if (problems := list(spelling.american(spelling.docstrings(path), spelling.NAMES)))
    }
    assert len(files) > 2
    assert found == {}


def misspelt(*paths):
    """What codespell, as pyproject.toml configures it, finds in files and folders."""
    pytest.importorskip("codespell_lib", reason="codespell is not installed")
    command = [sys.executable, "-m", "codespell_lib", *map(str, paths)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()


def test_nothing_is_misspelt():
    assert misspelt(*NAMES, *FOLDERS) == []


def test_what_is_misspelt_is_found(tmp_path):
    (tmp_path / "bad.md").write_text("Sample {}eh neighbours.".format("t"))
    (line,) = misspelt(tmp_path / "bad.md")
    assert "the" in line
