"""The examples of kernels/README.md run as they stand, and the worked ones are right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "kernels" / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
TENSORS = """
import torch
image, theta, grid = torch.rand(2, 3, 9, 8), torch.eye(2, 3).repeat(2, 1, 1), torch.rand(2, 5, 4, 2)
"""
AGREEMENT = """
from stn_kernels import backend
problem = [t.double().requires_grad_() for t in (torch.rand(2, 3, 5, 6), torch.tensor([[0.5], [2.0]]))]
results = []
for backend.interpret_cpu_tensors in (True, False):
    output = sample(*problem, (4, 5), coordinate_map="swirl", mode="smoothstep")
    results.append((output, *torch.autograd.grad(output.square().sum(), problem)))
for kernel, twin in zip(*results):
    torch.testing.assert_close(kernel, twin, rtol=1e-10, atol=1e-10)
"""


def test_the_examples_run_and_a_registered_map_and_kernel_agree_with_their_twins(tmp_path):
    pytest.importorskip("triton")
    script = tmp_path / "examples.py"  # a file, because Triton reads the source of its functions
    script.write_text(TENSORS + "\n".join(BLOCKS) + AGREEMENT)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
