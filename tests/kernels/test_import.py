"""The import takes nothing that is slow, and registers the operators."""

import subprocess
import sys

import pytest
import torch

import stn_kernels

SLOW = ("torch._dynamo", "torch._inductor", "triton", "sympy", "scipy")
SAMPLES = """
image = torch.rand(1, 1, 4, 4, requires_grad=True)
theta = torch.eye(2, 3).expand(1, 2, 3).clone().requires_grad_()
output = stn_kernels.affine_sample(image, theta, (3, 3), padding_mode="border")
output.sum().backward(create_graph=True)
stn_kernels.splat(output, torch.rand(1, 3, 3, 2), (4, 4)).sum().backward()
"""


def run(program, *arguments):
    """What a program prints in a process of its own, where TRITON_INTERPRET is not set."""
    program = f"import os, sys\nos.environ.pop('TRITON_INTERPRET', None)\n{program}"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("calls", ["", SAMPLES], ids=["the import", "and calls on the CPU"])
def test_nothing_slow_is_imported(calls):
    program = f"import torch\nbefore = set(sys.modules)\nimport stn_kernels{calls}"
    added = run(f"{program}\nprint(*set(sys.modules) - before)")
    assert "stn_kernels.ops" in added
    assert [name for name in added if name.startswith(SLOW)] == []
    assert [name for name in added if name.startswith("stn_kernels.launch")] == []


class Warp(torch.nn.Module):
    def forward(self, image, theta):
        return stn_kernels.affine_sample(image, theta, (3, 5), mode="bicubic")


def test_an_exported_program_needs_the_import_only(tmp_path):
    tensors = (torch.rand(2, 1, 4, 4), torch.randn(2, 2, 3))
    torch.export.save(torch.export.export(Warp(), tensors), tmp_path / "warp.pt2")
    torch.save(tensors, tmp_path / "tensors.pt")
    loads = """
import torch, stn_kernels
program = torch.export.load(sys.argv[1] + "/warp.pt2")
print(program.module()(*torch.load(sys.argv[1] + "/tensors.pt", weights_only=True)).sum().item())
"""
    (total,) = run(loads, tmp_path)
    assert abs(float(total) - Warp()(*tensors).sum().item()) <= 1e-5
