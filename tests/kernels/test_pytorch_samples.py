"""The inputs on which PyTorch tests its own samplers, here in place of its own."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from sampling_cases import assert_close
from stn_kernels import grid_sample

OPERATORS = ("nn.functional.grid_sample", "grid_sampler_2d", "grid_sampler_3d")
MODES, PADDING_MODES = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
# In a process of its own: importing PyTorch's tests changes settings of PyTorch. A package that they import
# is for a base class of tests, which is not used.
DRAW = """
import sys, types, unittest, torch
sys.modules.setdefault("expecttest", types.ModuleType("expecttest")).TestCase = unittest.TestCase
from torch.testing._internal.common_methods_invocations import op_db
samples = {}
for operator in op_db:
    if operator.name in sys.argv[2:]:
        torch.manual_seed(0)
        drawn = operator.sample_inputs("cpu", torch.float64)
        samples[operator.name] = [(s.input, *s.args, *s.kwargs.values()) for s in drawn]
torch.save(samples, sys.argv[1])
"""
# The largest output that takes the interpreter, or ATen, less than a second.
MOST = {"kernels": 5_000, "cpu_path": 500_000}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    file = tmp_path_factory.mktemp("samples") / "samples.pt"
    subprocess.run([sys.executable, "-c", DRAW, str(file), *OPERATORS], check=True, timeout=300)
    return torch.load(file)


def results(sample, image, grid, *choices):
    leaves = [t.detach().requires_grad_() for t in (image, grid)]
    output = sample(*leaves, *choices)
    grads = torch.autograd.grad(output.square().sum(), leaves)
    return {"output": output.detach(), "image's gradient": grads[0], "grid's gradient": grads[1]}


@pytest.mark.parametrize("way", MOST)
@pytest.mark.parametrize("operator", OPERATORS)
def test_pytorchs_samples(request, samples, operator, way):
    device, tried = request.getfixturevalue(way), 0
    for image, grid, mode, padding_mode, align_corners in samples[operator]:
        if max(image.numel(), grid.numel()) > MOST[way]:
            continue
        mode = MODES[mode] if isinstance(mode, int) else mode
        padding_mode = PADDING_MODES[padding_mode] if isinstance(padding_mode, int) else padding_mode
        choices = mode, padding_mode, align_corners
        expected = results(functional.grid_sample, image, grid, *choices)
        actual = results(grid_sample, image.to(device), grid.to(device), *choices)
        assert_close(actual, expected)
        tried += 1
    assert tried >= 6
