"""`python -m stn` says, in lines that can be pasted, what is installed and what runs where."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from stn import __main__ as command
from stn_kernels import backend

NAMES = (
    *("Python", "torch", "triton", "stn", "stn_kernels", "jupyterlab", "nbval", "matplotlib"),
    *("cpu", "digits", "MNIST", "book"),
)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
with_triton = pytest.mark.skipif(not backend.HAS_TRITON, reason="needs Triton")


@pytest.fixture
def said(capsys, monkeypatch):
    """Runs the command: its status, and what it said by name."""
    monkeypatch.delenv("STN_DATA", raising=False)

    def run():
        status = command.main([])
        return status, dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())

    return run


def fails(*arguments, **options):
    raise OSError("the reason\n  in two lines")


@without_gpu
def test_every_line_is_there_and_in_order(said):
    status, lines = said()
    assert status == 0
    assert tuple(lines) == NAMES
    assert lines["torch"] == torch.__version__
    assert lines["stn"] == metadata.version("spatial-transformers")
    assert lines["cpu"].endswith("; samples with PyTorch, correctly")
    assert lines["digits"] == "10000 for training, 2000 for tests"
    assert lines["book"] == "can be read"


def test_lines_are_aligned(capsys):
    command.main([])
    lines = capsys.readouterr().out.splitlines()
    assert len({re.match(r"\S+ +", line).end() for line in lines}) == 1


# Each in a process of its own, as the command is: where kernels were interpreted before, nothing compiles.
APART = """
import sys
from stn import __main__ as command
if "broken" in sys.argv:
    from triton.backends.amd.compiler import HIPBackend
    from triton.backends.nvidia.compiler import CUDABackend
    def fails(*arguments):
        raise OSError("the reason\\n  in two lines")
    CUDABackend.make_cubin = HIPBackend.make_hsaco = fails
sys.exit(command.main([]))
"""


def line_of_triton(*arguments):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", APART, *arguments], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("triton ")]
    return line.split(maxsplit=1)[1]


@with_triton
def test_triton_compiles_without_a_gpu_and_not_from_the_cache():
    for _ in range(2):
        assert re.fullmatch(r"[\d.]+\S*, compiles for (sm_80|gfx942)", line_of_triton())
    assert line_of_triton("broken").endswith(", OSError: the reason in two lines")


@with_triton
def test_why_triton_does_not_compile_is_said_in_one_line(said, monkeypatch):
    monkeypatch.setattr("triton.compile", fails)
    status, lines = said()
    assert status == 0
    assert lines["triton"].endswith(", OSError: the reason in two lines")


@with_triton
def test_the_interpreter_is_named(said, monkeypatch):
    monkeypatch.setattr(backend, "INTERPRETED", True)
    monkeypatch.setattr(backend, "interpret_cpu_tensors", True)
    assert "; samples with Triton's interpreter, correctly" in said()[1]["cpu"]


@without_gpu
def test_a_gpu_that_fails_is_said_and_no_fault(said, monkeypatch):
    devices = [torch.device("cpu"), torch.device("cuda", 0)]
    monkeypatch.setattr(command, "_devices", lambda: devices)
    status, lines = said()
    assert status == 0
    assert re.match(r"\w+: .+; \w+: ", lines["cuda:0"])


@pytest.mark.parametrize("name", ["jupyterlab", "nbval", "matplotlib"])
def test_what_is_not_installed_is_said_and_no_fault(said, monkeypatch, name):
    version = metadata.version

    def hidden(distribution):
        if distribution == name:
            raise metadata.PackageNotFoundError(name)
        return version(distribution)

    monkeypatch.setattr(metadata, "version", hidden)
    status, lines = said()
    assert status == 0
    assert lines[name] == "not installed"


def test_without_a_folder_nothing_is_downloaded(said, monkeypatch):
    monkeypatch.setattr(command, "read_mnist", fails)
    assert said()[1]["MNIST"] == "STN_DATA is not set; downloaded when first needed"


def test_whole_mnist_is_found(said, monkeypatch):
    monkeypatch.setenv("STN_DATA", "a folder")
    monkeypatch.setattr(command, "read_mnist", dict)
    assert said()[1]["MNIST"] == "whole, in a folder"


def test_what_a_folder_lacks_is_said_and_no_fault(said, monkeypatch, tmp_path):
    monkeypatch.setenv("STN_DATA", str(tmp_path))
    status, lines = said()
    assert status == 0
    assert "lacks train-images-idx3-ubyte" in lines["MNIST"]


@pytest.mark.parametrize(
    ("name", "replacement", "line", "expected"),
    [
        (
            "affine_sample",
            lambda image, *_: image,
            "cpu",
            "comes out wrong: [0.0, 1.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0]",
        ),
        ("affine_sample", fails, "cpu", "; OSError: the reason in two lines"),
        ("digits", fails, "digits", "OSError: the reason in two lines"),
    ],
)
def test_where_the_book_cannot_be_read_the_status_is_1(said, monkeypatch, name, replacement, line, expected):
    monkeypatch.setattr(command, name, replacement)
    status, lines = said()
    assert status == 1
    assert lines[line].endswith(expected)
    assert lines["book"] == "cannot be read. Delete .venv and run `make book`, which makes it anew"


def python(*arguments):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_without_triton():
    program = (
        "import runpy, sys\n"
        "sys.modules['triton'] = None\n"
        "sys.argv[1:] = []\n"
        "runpy.run_module('stn', run_name='__main__')\n"
    )
    done = python("-c", program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("^triton +not installed$", done.stdout, re.MULTILINE)
    assert done.stderr == ""


def test_without_pytorch_a_line_says_so():
    """Without site-packages there is none."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-S", "-m", "stn"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "stn needs PyTorch, which is not installed: pip install torch\n"


def test_help():
    done = python("-m", "stn", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m stn")
    assert "can be read\n" not in done.stdout


def test_nothing_imports_it_with_the_package():
    done = python("-c", "import sys, stn; print('stn.__main__' in sys.modules)")
    assert done.stdout == "False\n"
