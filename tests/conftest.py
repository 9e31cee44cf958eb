"""What all tests share: one thread, a fixed seed for each, and how CPU tensors are computed."""

import importlib.util
import os

import pytest
import torch

# Triton decides when a kernel is decorated, its own at its import: now, whichever test needs it first.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
if importlib.util.find_spec("triton") is not None:
    import triton  # noqa: F401

from stn_kernels import backend

# CPU tensors take the way that users' do; the kernels' tests switch the interpreter on for themselves.
backend.interpret_cpu_tensors = False

# `make test` tries the same examples each time, `make properties` others and more of them.
if importlib.util.find_spec("hypothesis"):
    from hypothesis import HealthCheck, settings

    common = {
        "deadline": None,
        "database": None,
        # Fixtures choose what computes, which no example changes; a first example compiles or imports.
        "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    }
    settings.register_profile("test", max_examples=120, derandomize=True, **common)
    settings.register_profile("properties", max_examples=10_000, **common)
    settings.load_profile("test")

# Tests run in parallel processes; more threads than cores make all of them slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
