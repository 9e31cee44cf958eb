"""The distributions, the pinned versions and conda's environment agree, and the README's pip lines work."""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("book", "dev", "experiments")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

README = (ROOT / "README.md").read_text(encoding="utf-8")
POWERSHELL = re.search(r"```powershell\n(.*?)```", README, re.DOTALL)[1].splitlines()
# No index and no isolated builds: pip resolves against what is installed here and downloads nothing.
OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_NO_BUILD_ISOLATION": "0"}


def pins(python):
    """The constraints that hold on a version of Python: the exact version of each package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    surroundings = {"python_version": python, "python_full_version": f"{python}.9"}
    holding = [pin for pin in requirements if pin.marker is None or pin.marker.evaluate(surroundings)]
    versions = {}
    for pin in holding:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert canonicalize_name(pin.name) not in versions
        versions[canonicalize_name(pin.name)] = specifier.version
    return versions


def requirements(distribution, extras=("",)):
    """What an installed distribution and these of its extras ask for here."""
    for text in metadata.requires(distribution) or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras):
            yield requirement


def install_arguments(line):
    """What follows `pip install`, options about indexes apart."""
    return shlex.split(line)[-6:]


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, env=OFFLINE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_keep_to_the_lower_bounds(python):
    versions = pins(python)
    needs = [*requirements("stn-kernels"), *requirements("spatial-transformers", EXTRAS)]
    assert len(needs) > 20
    for need in needs:
        if need.name != "stn-kernels":
            assert versions[canonicalize_name(need.name)] in need.specifier, need


def test_everything_that_is_installed_is_pinned():
    """CUDA's libraries apart: PyTorch's own metadata pin them."""
    versions = pins(".".join(map(str, sys.version_info[:2])))
    missing, seen, left = set(), set(), [("spatial-transformers", EXTRAS)]
    while left:
        distribution, extras = left.pop()
        for need in requirements(distribution, ("", *extras)):
            name = canonicalize_name(need.name)
            if (name, *need.extras) in seen or name.startswith(("nvidia-", "cuda-")):
                continue
            seen.add((name, *need.extras))
            left.append((name, need.extras))
            if name != "stn-kernels" and name not in versions:
                missing.add(name)
    assert len(seen) > 100
    assert missing == set()


def test_conda_script_and_readme_install_the_same():
    script = (ROOT / ".ci" / "environment").read_text(encoding="utf-8")
    arguments = install_arguments(re.search(r"^ *(-c constraints\.txt .*?) 2>", script, re.MULTILINE)[1])
    assert arguments == ["-c", "constraints.txt", "-e", "./kernels", "-e", ".[book,experiments,dev]"]
    assert install_arguments(POWERSHELL[1]) == arguments
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert shlex.split(" ".join(conda[-1]["pip"])) == arguments
    assert conda[1] == "pip"


def test_conda_script_and_distributions_take_the_same_pythons():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pythons = SpecifierSet(conda[0].removeprefix("python"))
    assert [v for v in ("3.9", *PYTHONS, "3.15") if v in pythons] == list(PYTHONS)
    script = (ROOT / ".ci" / "environment").read_text(encoding="utf-8")
    assert "(3, 10) <= sys.version_info[:2] <= (3, 14)" in script
    for distribution in ("stn-kernels", "spatial-transformers"):
        assert metadata.metadata(distribution)["Requires-Python"] == ">=3.10"


def test_condas_pip_section_resolves(tree):
    conda = yaml.safe_load((tree / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (tree / "requirements.txt").write_text("\n".join(conda[-1]["pip"]))  # as conda does it
    said = run(sys.executable, "-m", "pip", "install", "--dry-run", "-r", "requirements.txt", cwd=tree)
    assert "stn-kernels-0.1.0" in said
    assert "spatial-transformers-0.1.0" in said


def test_wheels_claim_one_top_level_name_each_and_hold_their_data(tree, tmp_path):
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), "./kernels", ".", cwd=tree)
    contents = {}
    for wheel in tmp_path.glob("*.whl"):
        names = zipfile.ZipFile(wheel).namelist()
        top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
        contents[wheel.name.partition("-")[0]] = top
        if wheel.name.startswith("spatial"):
            assert {"stn/py.typed", "stn/data/digits.npz", "stn/data/LICENSE.md"} <= set(names)
            assert any(name.endswith(".mplstyle") for name in names)
        else:
            assert "stn_kernels/py.typed" in names
    assert contents == {"stn_kernels": {"stn_kernels"}, "spatial_transformers": {"stn"}}


def test_the_kernels_source_distribution_is_the_package_alone(tree, tmp_path):
    program = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    name = run(sys.executable, "-c", program, cwd=tree / "kernels").splitlines()[-1]
    with tarfile.open(tmp_path / name) as archive:
        paths = [member.name.split("/")[1:] for member in archive if member.isfile()]
    assert ["stn_kernels", "py.typed"] in paths
    assert {parts[0] for parts in paths if len(parts) > 1} == {"stn_kernels", "stn_kernels.egg-info"}


def test_core_imports_without_what_only_the_book_needs():
    program = (
        "import sys\n"
        "missing = ['IPython', 'ipykernel', 'jupytext', 'matplotlib', 'nbformat', 'pooch', 'tqdm']\n"
        "sys.modules.update(dict.fromkeys(missing))\n"
        "import stn, stn_kernels, stn.exercises\n"
        "print(len(stn.exercises.names()) > 0)"
    )
    assert run(sys.executable, "-c", program, cwd=ROOT) == "True\n"


def test_readmes_pip_lines_for_windows(tree, tmp_path):
    """Its three lines, run here with this system's paths in place of Windows'.

    The venv, the install, the resolution of the extras and the working copy are real. The packages themselves
    are those installed here, which the new venv is shown, and JupyterLab is only asked for its version.
    """
    assert len(POWERSHELL) == 3
    python = tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python"
    here = {"py": sys.executable, r".venv\Scripts\python": str(python), ".venv": str(tmp_path)}
    make, install, read = (
        [here.get(word, word.replace("\\", "/")) for word in shlex.split(line.replace("\\", "\\\\"))]
        for line in POWERSHELL
    )
    run(*make, cwd=tree)
    site = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tree).strip()
    Path(site, "installed_here.pth").write_text(sysconfig.get_path("purelib"))
    if sys.version_info < (3, 12):  # later ones make venvs without this, whose bundled version is too old
        run(str(python), "-m", "pip", "uninstall", "--yes", "setuptools", cwd=tree)

    assert "Successfully installed" in run(*install, cwd=tree)
    program = "import stn, stn_kernels; print(stn.__file__); print(stn_kernels.__file__)"
    imported = run(str(python), "-c", program, cwd=tmp_path).splitlines()
    assert [Path(file).resolve() for file in imported] == [
        (tree / "stn" / "__init__.py").resolve(),
        (tree / "kernels" / "stn_kernels" / "__init__.py").resolve(),
    ]
    assert re.match(r"\d+\.\d+", run(*read, "--version", cwd=tree).splitlines()[-1])
    assert (tree / "book" / "README.md").exists()
