"""Which code a kernel test runs, and memory that shows what was left unwritten.

`tests/conftest.py` has set TRITON_INTERPRET where there is no GPU, and made CPU tensors take ATen.
"""

from pathlib import Path

import pytest
import torch

from stn_kernels import backend, functional

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _interpreter_leaves_out_what_it_throws_away():
    """The same values in a fraction of the time: `quick_interpreter.py`."""
    if not (backend.HAS_TRITON and backend.INTERPRETED):
        yield
        return
    import quick_interpreter

    with pytest.MonkeyPatch.context() as monkeypatch:
        quick_interpreter.install(monkeypatch)
        yield


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


@pytest.fixture
def force_way(monkeypatch):
    """Has the image's gradient take one of the ways of `launch_backward`, by its name."""
    from stn_kernels import launch_backward

    return lambda name: monkeypatch.setattr(launch_backward, "forced_way", name)


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
        launch.PLANS.clear()  # planned with what another test had put in place


def runs_kernels(item):
    """Whether it asks for the fixture `kernels`, itself or by its parameter of the fixture `device`."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "kernels" in item.fixturenames or parameters.get("device") == "kernels"


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            if runs_kernels(item):
                item.add_marker(pytest.mark.gpu)
            # A cast of NaN to an integer differs between machines. NumPy, in the interpreter, warns of it.
            item.add_marker(pytest.mark.filterwarnings("error:.* in cast:RuntimeWarning"))
            # PyTorch's own, at the first use of forward mode or of the compiler.
            item.add_marker(pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"))
