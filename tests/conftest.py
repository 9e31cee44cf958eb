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

# Tests run in parallel processes; more threads than cores make all of them slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
