"""The check of addresses, which the properties of the kernels are tried under, notices what it is for."""

import pytest
import torch

from sampling_cases import draw_problem, library, values_and_gradients
from stn_kernels import backend
from stn_kernels.autograd import Choices

if not (backend.HAS_TRITON and backend.INTERPRETED):
    pytest.skip("without Triton's interpreter", allow_module_level=True)

import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

import addresses


@pytest.fixture
def watched(kernels, monkeypatch):
    return addresses.install(monkeypatch)


@triton.jit
def copy(source, target, length, STRIDE: tl.constexpr, ATOMIC: tl.constexpr):
    index = tl.arange(0, 8)
    values = tl.load(source + STRIDE * index, index < length)
    if ATOMIC:
        tl.atomic_add(target + index, values, index < length)
    else:
        tl.store(target + index, values, index < length)


@pytest.mark.parametrize("atomic", [False, True])
def test_elements_are_inside(watched, atomic):
    source, target = torch.arange(10.0), torch.zeros(5)
    copy[(1,)](source[::2], target, 5, 2, atomic)
    assert target.tolist() == [0, 2, 4, 6, 8]
    assert watched.checked == 10


@pytest.mark.parametrize(
    ("what", "source", "target", "stride"),
    [
        ("load", torch.ones(9)[2:6], torch.zeros(5), 1),
        ("load", torch.ones(10)[::2], torch.zeros(5), 1),  # between its elements
        ("load", torch.ones(5).expand(3, 5).T, torch.zeros(5), 2),
        ("store", torch.ones(5), torch.zeros(9)[2:6], 1),
        ("atomic", torch.ones(5), torch.zeros(9)[2:6], 1),
    ],
)
def test_what_is_beside_a_tensor_is_outside(watched, what, source, target, stride):
    with pytest.raises(InterpreterError, match=what):
        copy[(1,)](source, target, 5, stride, what == "atomic")


def test_a_kernel_that_reads_beyond_the_image_is_noticed(watched, monkeypatch):
    """It is told of a row that the image does not have, and most points are beyond all borders."""
    from stn_kernels import launch

    def larger(size, volume_size=launch.volume_size):
        depth, height, width = volume_size(size)
        return depth, height + (size == (4, 5)), width

    choices = Choices((3, 6), "affine", padding_mode="border")
    (image, theta, *_), grad_output = draw_problem(choices, (4, 5), images=1)
    tensors = (image, 100 * theta, None, None)
    values_and_gradients(library(choices), tensors, grad_output)
    assert watched.checked > 0
    monkeypatch.setattr(launch, "volume_size", larger)
    launch.PLANS.clear()
    with pytest.raises(InterpreterError, match="load"):
        library(choices)(*tensors)
