"""Both wheels in a clean environment beside their neighbours: `make wheels`, which downloads what they need.

The environment has the pinned PyTorch, then also what else is installed under similar names: the distribution
`kernels` of Hugging Face, transformers, which uses it, and mypy.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

MEGABYTES = 4  # both distributions, as installed, bytecode included
# All that is installed, under site-packages.
CONTENTS = {
    "stn-kernels": ["stn_kernels/*.py", "stn_kernels/py.typed"],
    "spatial-transformers": [
        "stn/*.py",
        "stn/py.typed",
        "stn/book.mplstyle",
        "stn/data/digits.npz",
        "stn/data/LICENSE.md",
    ],
}
BOOK_ONLY = ("ipykernel", "ipython", "ipywidgets", "jupyter", "matplotlib", "nb", "notebook", "pooch", "tqdm")
FILES = """
import sys
from importlib import metadata
for file in metadata.files(sys.argv[1]):
    print(file, file.locate().stat().st_size, sep="\\t")
"""
NEIGHBOURS = """
import kernels, stn, stn_kernels, torch, transformers, triton
from importlib import metadata
owners = metadata.packages_distributions()
print(owners["kernels"], owners["stn"], owners["stn_kernels"])
print(hasattr(kernels, "get_kernel"), stn_kernels.ops.__name__)
"""
CONSUMER = """
import stn
import torch
from stn_kernels import affine_sample, grid_sample, register_coordinate_map, splat, tps_sample
from torch import Tensor, nn
from typing_extensions import assert_type


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        transform = stn.ThinPlateSpline((4, 4))
        localisation = stn.ConvolutionalLocalisation((1, 28, 28), transform)
        self.transformer = stn.SpatialTransformer(localisation, transform, (28, 28))
        self.optimiser = torch.optim.SGD(stn.parameter_groups(self, 0.1))

    def forward(self, images: Tensor) -> Tensor:
        assert_type(self.transformer.forward(images), Tensor)
        output, theta = self.transformer.forward(images, return_theta=True)
        return output + theta.sum()


def warp(images: Tensor, theta: Tensor, grid: Tensor) -> Tensor:
    assert_type(affine_sample(images, theta, (28, 28)), Tensor)
    assert_type(grid_sample(images, grid, mode="bicubic", fill_value=0.0), Tensor)
    assert_type(splat(images, grid, (28, 28)), Tensor)
    assert_type(splat(images, grid, (28, 28), return_count=True), tuple[Tensor, Tensor])
    return tps_sample(images, theta, (28, 28), target_points=torch.rand(4, 2))


affine_sample(torch.rand(1, 1, 2, 2), "theta", (28, 28))  # type: ignore[arg-type]
register_coordinate_map("mine", 3)  # type: ignore[arg-type]
stn.SpatialTransformer(None, None, 28)  # type: ignore[arg-type]
"""


class Environment:
    """A virtual environment in a folder, in which nothing of this checkout is on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
        self.python = folder / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(self, *arguments: object) -> str:
        surroundings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRITON_INTERPRET")}
        done = subprocess.run(
            [str(self.python), *map(str, arguments)],
            cwd=self.folder,
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *packages: object) -> None:
        index = os.environ.get("TORCH_INDEX")
        options = ["--extra-index-url", index] if index else []
        self.run("-m", "pip", "install", *options, "-c", self.folder / "constraints.txt", *packages)

    def installed(self) -> set[str]:
        lines = self.run("-m", "pip", "list", "--format=freeze").splitlines()
        return {line.partition("==")[0].lower() for line in lines}


@pytest.fixture(scope="module")
def core(tree: Path) -> Iterator[Environment]:
    """The two wheels and what they ask for, nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder))
        constraints = (tree / "constraints.txt").read_text(encoding="utf-8")
        (environment.folder / "constraints.txt").write_text(constraints, encoding="utf-8")
        wheels = environment.folder / "wheels"
        environment.run("-m", "pip", "wheel", "--no-deps", "-w", wheels, tree / "kernels", tree)
        environment.install(*wheels.glob("*.whl"))
        yield environment


@pytest.fixture(scope="module")
def crowded(core: Environment) -> Environment:
    """The same with its neighbours; tests that ask for `core` alone come first."""
    core.install("kernels", "transformers", "mypy")
    return core


def test_the_core_installs_nothing_that_only_the_book_needs(core: Environment) -> None:
    installed = core.installed()
    assert {"spatial-transformers", "stn-kernels", "torch"} <= installed
    assert [name for name in installed if name.startswith(BOOK_ONLY)] == []


def test_only_the_packages_are_installed_and_they_are_small(core: Environment) -> None:
    total = 0
    for distribution, expected in CONTENTS.items():
        rows = [line.split("\t") for line in core.run("-c", FILES, distribution).splitlines()]
        total += sum(int(size) for _, size in rows)
        own = [name for name, _ in rows if ".dist-info/" not in name and "__pycache__/" not in name]
        assert [name for name in own if not any(fnmatch(name, pattern) for pattern in expected)] == []
        assert all(any(fnmatch(name, pattern) for name in own) for pattern in expected)
    print(f"installed: {total / 1e6:.2f} MB")
    assert total < MEGABYTES * 1e6


def test_the_environment_check_passes(core: Environment) -> None:
    assert "can be read" in core.run("-m", "stn")


def test_results_go_to_the_working_directory(core: Environment) -> None:
    """The committed ones, 0.6 MB, stay in the clone, where the chapters read them."""
    program = "from stn.experiments.report import RESULTS; print(RESULTS.absolute())"
    assert core.run("-c", program).strip() == str((core.folder / "results").resolve())


def test_all_import_beside_the_other_distribution_named_kernels(crowded: Environment) -> None:
    said = crowded.run("-c", NEIGHBOURS).splitlines()
    assert said == ["['kernels'] ['spatial-transformers'] ['stn-kernels']", "True stn_kernels.ops"]


def test_pip_finds_no_conflict(crowded: Environment) -> None:
    crowded.run("-m", "pip", "check")


def test_types_hold_strictly_from_a_consumers_side(crowded: Environment) -> None:
    """Unused ignores are errors under --strict: those of the wrong calls show that the types are seen."""
    (crowded.folder / "consumer.py").write_text(CONSUMER, encoding="utf-8")
    crowded.run("-m", "mypy", "--strict", "consumer.py")
