"""What all tests share: one thread, a fixed seed for each, and how CPU tensors are computed."""

import os

import pytest
import torch

# Triton decides when a kernel is decorated: at the first import of stn_kernels, whichever test makes it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from stn_kernels import backend

# CPU tensors take the way that users' do; the kernels' tests switch the interpreter on for themselves.
backend.interpret_cpu_tensors = False

# Tests run in parallel processes; more threads than cores make all of them slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
