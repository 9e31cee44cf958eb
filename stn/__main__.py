"""The environment check, `python -m stn`: lines to read, and to paste into a question.

They say what is installed, what samples on each device, whether a small warp comes out as worked out by hand,
and which digits are there. Where that warp fails on the CPU, or the embedded digits do, the book cannot be
read, and the status is 1. Whatever else is missing is only said.
"""

import argparse
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

import torch

from stn.data import digits
from stn.data.sources import read_mnist
from stn_kernels import affine_sample, backend

DESCRIPTION = (
    "Checks the environment: versions, devices and what samples on them, a warp with a known result, and the "
    "digits. The lines are made to be pasted into a question. The status is 0 if the book can be read."
)


def main(words: Sequence[str] | None = None) -> int:
    """Print the lines; the status that the command exits with."""
    argparse.ArgumentParser(prog="python -m stn", description=DESCRIPTION).parse_args(words)
    readable = True
    for name, text, is_fault in _lines():
        print(f"{name:<12} {text}", flush=True)
        readable = readable and not is_fault
    remedy = "cannot be read. Delete .venv and run `make book`, which makes it anew"
    print(f"{'book':<12} {'can be read' if readable else remedy}")
    return 0 if readable else 1


def _lines() -> Iterator[tuple[str, str, bool]]:
    """Each line's name and text, and whether it says why the book cannot be read."""
    yield "Python", f"{platform.python_version()}, {platform.platform()}", False
    yield "torch", torch.__version__, False
    yield "triton", _attempt(_triton)[0], False
    yield "stn", _version("spatial-transformers"), False
    for name in ("stn_kernels", "jupyterlab", "nbval", "matplotlib"):
        yield name, _version(name), False
    for device in _devices():
        about, _ = _attempt(_about, device)
        warp, fails = _attempt(_warp, device)
        yield str(device), f"{about}; {warp}", fails and device.type == "cpu"
    yield "digits", *_attempt(_digits)
    yield "MNIST", _attempt(_mnist)[0], False


def _attempt(check: Callable[..., str], *arguments: object) -> tuple[str, bool]:
    """What a check says, or in one line why it fails; and whether it does."""
    try:
        return check(*arguments), False
    except Exception as error:
        return textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ..."), True


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _triton() -> str:
    if not backend.HAS_TRITON:
        return "not installed"
    import triton

    return f"{triton.__version__}, {_attempt(_compile)[0]}"


def _compile() -> str:
    """Let Triton compile a kernel for a GPU, which need not be there."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def double(values):  # type: ignore[no-untyped-def]  # Triton would take types for its own
        at = values + tl.arange(0, 32)
        tl.store(at, 2 * tl.load(at))

    # Not @triton.jit, which makes no kernel that compiles where TRITON_INTERPRET is set.
    source = ASTSource(triton.JITFunction(double), {"values": "*fp32"})
    target = GPUTarget("hip", "gfx942", 64) if torch.version.hip else GPUTarget("cuda", 80, 32)
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.always_compile = True  # one from the cache would show nothing
        triton.compile(source, target=target)
    return f"compiles for {'gfx942' if torch.version.hip else 'sm_80'}"


def _devices() -> Iterator[torch.device]:
    yield torch.device("cpu")
    for index in range(torch.cuda.device_count()):
        yield torch.device("cuda", index)
    if torch.backends.mps.is_available():
        yield torch.device("mps")


def _about(device: torch.device) -> str:
    if device.type == "cpu":
        return f"{os.cpu_count()} cores, of which PyTorch uses {torch.get_num_threads()}"
    if device.type == "mps":
        return platform.machine()
    gpu = torch.cuda.get_device_properties(device)
    return f"{gpu.name}, {gpu.gcnArchName if torch.version.hip else f'sm_{gpu.major}{gpu.minor}'}"


def _warp(device: torch.device) -> str:
    """Sample 0, 1, 2, 3 half a pixel further right: the means of neighbours, where beyond the last lies 0."""
    image = torch.arange(4.0, device=device).reshape(1, 1, 1, 4).requires_grad_()
    theta = torch.tensor([[[1.0, 0.0, 0.25], [0.0, 1.0, 0.0]]], device=device)
    output = affine_sample(image, theta, (1, 4))
    (gradient,) = torch.autograd.grad(output.sum(), image)
    result = [*output.flatten().tolist(), *gradient.flatten().tolist()]
    # Each pixel but the first is half of two means.
    if result != [0.5, 1.5, 2.5, 1.5, 0.5, 1.0, 1.0, 1.0]:
        raise ArithmeticError(f"a warp with {_sampler(device)} comes out wrong: {result}")
    return f"samples with {_sampler(device)}, correctly"


def _sampler(device: torch.device) -> str:
    if not backend.runs_kernels(device):
        return "PyTorch"
    return "Triton's interpreter" if backend.INTERPRETED else "the Triton kernels"


def _digits() -> str:
    train, test = (len(digits(split)[0]) for split in ("train", "test"))
    return f"{train} for training, {test} for tests"


def _mnist() -> str:
    folder = os.environ.get("STN_DATA")
    if not folder:
        return "STN_DATA is not set; downloaded when first needed"
    read_mnist()
    return f"whole, in {folder}"


if __name__ == "__main__":
    sys.exit(main())
