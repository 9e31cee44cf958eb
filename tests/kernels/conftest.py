"""Which code a kernel test runs, and memory that shows what was left unwritten.

`tests/conftest.py` has set TRITON_INTERPRET where there is no GPU, and made CPU tensors take ATen.
"""

from pathlib import Path

import pytest
import torch

from stn_kernels import backend, functional

HERE = Path(__file__).parent


@pytest.fixture
def kernels(monkeypatch):
    """The device on which the fused kernels run: compiled on a GPU, else interpreted on the CPU."""
    if torch.cuda.is_available() and backend.HAS_TRITON:
        return torch.device("cuda")
    if not (backend.HAS_TRITON and backend.INTERPRETED):
        pytest.skip("the kernels need Triton, and a GPU or TRITON_INTERPRET=1")
    monkeypatch.setattr(backend, "interpret_cpu_tensors", True)
    return torch.device("cpu")


@pytest.fixture
def cpu_path():
    """The device of tensors that run through ATen or the reference, as a CPU user's do."""
    return torch.device("cpu")


@pytest.fixture
def cpu_operators(monkeypatch):
    """The same through the registered operators, as compilers and transforms reach them."""
    monkeypatch.setattr(functional, "is_plain", lambda *tensors: False)
    return torch.device("cpu")


@pytest.fixture(params=["kernels", "cpu_path", "cpu_operators"])
def device(request):
    """Every way to a result in turn, as the device whose tensors take it."""
    return request.getfixturevalue(request.param)


class PoisonedTorch:
    """`torch`, except that fresh memory holds NaN, or the largest integer."""

    def __getattr__(self, name):
        return getattr(torch, name)

    @staticmethod
    def poisoned(fresh):
        return fresh.fill_(torch.nan if fresh.is_floating_point() else torch.iinfo(fresh.dtype).max)

    def empty(self, *args, **kwargs):
        return self.poisoned(torch.empty(*args, **kwargs))

    def empty_like(self, *args, **kwargs):
        return self.poisoned(torch.empty_like(*args, **kwargs))


@pytest.fixture(autouse=True)
def _unwritten_memory_is_poisoned(monkeypatch):
    if backend.HAS_TRITON:
        from stn_kernels import launch, launch_backward, splatting

        for module in (launch, launch_backward, splatting):
            monkeypatch.setattr(module, "torch", PoisonedTorch())


def pytest_collection_modifyitems(items):
    """A cast of NaN to an integer differs between machines. NumPy, in the interpreter, warns of it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error:.* in cast:RuntimeWarning"))
            # PyTorch's own, at the first use of forward mode or of the compiler.
            item.add_marker(pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"))
