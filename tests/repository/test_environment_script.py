"""`.ci/environment` makes, keeps and mends .venv, and says in one line why it cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INPUTS = (".ci/environment", "pyproject.toml", "kernels/pyproject.toml", "constraints.txt")
TOOLS = ("cat", "chmod", "cksum", "cp", "dirname", "grep", "mkdir", "rm", "sed", "sh", "tail")

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="the script is for POSIX shells; Windows has pip lines"
)

# A Python that claims another version or lacks modules, and runs what the script asks of it.
PRETENDER = """#!/bin/sh
exec '{python}' -c 'import sys
sys.version_info = {version}
sys.modules.update(dict.fromkeys({without}))
exec(sys.argv[1])' "$2"
"""
# A Python whose venv is a copy of itself and whose pip writes down what it was asked.
STAND_IN = """#!/bin/sh
case "$*" in
    *'-m venv'*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >>log ;;
    *'-m pip'*) echo "$*" >>log; test ! -e pip-fails ;;
    *print*) echo 3.12 ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A clone, in a folder with a space in its name, beside a `bin` that holds all there is on the PATH."""
    clone, tools = tmp_path / "a clone", tmp_path / "bin"
    for name in INPUTS:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))
    return clone


def add_python(clone, text, name="python3"):
    path = clone.parent / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def run(clone, **environment):
    return subprocess.run(
        [clone / ".ci" / "environment"],
        cwd=clone.parent,
        env={"PATH": str(clone.parent / "bin"), "HOME": str(clone.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def the_one_line(result):
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    return line


def test_no_python(clone):
    assert the_one_line(run(clone)).startswith("No Python found. Install one of 3.10 to 3.14")


def test_named_python_that_is_not_there(clone):
    add_python(clone, STAND_IN)
    assert the_one_line(run(clone, PYTHON="/no/python")).startswith("No Python found at /no/python.")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ((2, 7, 18), "Python 2.7 is too old."),
        ((3, 9, 18), "Python 3.9 is too old."),
        ((3, 15, 0), "Python 3.15 is too new for the versions in constraints.txt."),
    ],
)
def test_unsuitable_python(clone, version, reason):
    add_python(clone, PRETENDER.format(python=sys.executable, version=version, without="[]"))
    assert the_one_line(run(clone)).startswith(reason)


def test_python_without_venv(clone):
    text = PRETENDER.format(python=sys.executable, version=(3, 12, 1), without='["ensurepip"]')
    add_python(clone, text)
    assert "Python 3.12 has no venv module." in the_one_line(run(clone))


def test_a_suitable_python_is_preferred_to_one_that_does_not_start(clone):
    add_python(clone, "#!/bin/sh\nexit 127\n", name="python3.13")
    add_python(clone, STAND_IN, name="python3.12")
    assert run(clone).returncode == 0


def test_installs_both_distributions_with_the_constraints(clone):
    add_python(clone, STAND_IN)
    result = run(clone, TORCH_INDEX="https://example.org/cpu")
    assert result.returncode == 0, result.stderr
    made, installed = (clone / "log").read_text().splitlines()
    assert made == "venv"
    assert installed.endswith(
        "--extra-index-url https://example.org/cpu -c constraints.txt -e ./kernels -e .[book,experiments,dev]"
    )


def test_nothing_is_done_again_unless_the_inputs_change(clone):
    add_python(clone, STAND_IN)
    run(clone)
    log = clone / "log"
    first = log.read_text()
    for name in INPUTS:
        (clone / name).touch()
    assert run(clone).returncode == 0
    assert log.read_text() == first
    with (clone / "kernels" / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert run(clone).returncode == 0
    assert log.read_text().count("pip install") == 2


def test_moved_clone_is_installed_anew(clone):
    add_python(clone, STAND_IN)
    run(clone)
    moved = clone.rename(clone.with_name("elsewhere"))
    assert run(moved).returncode == 0
    assert (moved / "log").read_text().count("pip install") == 2


def test_interrupted_install_is_resumed(clone):
    add_python(clone, STAND_IN)
    (clone / "pip-fails").touch()
    assert "pip could not install the environment: interrupted." in the_one_line(run(clone))
    (clone / "pip-fails").unlink()
    assert run(clone).returncode == 0
    log = (clone / "log").read_text()
    assert (log.count("venv\n"), log.count("pip install")) == (1, 2)


def test_venv_whose_python_does_not_start_is_made_anew(clone):
    add_python(clone, STAND_IN)
    run(clone)
    (clone / ".venv" / "bin" / "python").write_text("#!/no/such/interpreter\n")
    assert run(clone).returncode == 0
    log = (clone / "log").read_text()
    assert (log.count("venv\n"), log.count("pip install")) == (2, 2)


@pytest.mark.parametrize(
    ("pip", "reason"),
    [
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}, "No network: "),
        (
            {"PIP_NO_INDEX": "1"},
            "pip could not install the environment: No matching distribution found for setuptools",
        ),
    ],
)
def test_pips_failure_in_one_line_and_no_stamp(clone, pip, reason):
    """With the real venv and pip."""
    (clone.parent / "bin" / "python3").symlink_to(sys.executable)
    result = run(clone, PYTHON=sys.executable, PIP_CONFIG_FILE=os.devnull, **pip)
    assert the_one_line(result).startswith(reason)
    assert not (clone / ".venv" / ".stamp").exists()
