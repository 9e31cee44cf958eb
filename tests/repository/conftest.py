"""What the tests of the distributions share."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of what the distributions are made of, so that building leaves nothing in the clone."""
    tree = tmp_path_factory.mktemp("tree")
    ignore = shutil.ignore_patterns("*.egg-info", "__pycache__", "build", "checkpoints")
    for folder in ("kernels", "stn", "chapters"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignore)
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    return tree
