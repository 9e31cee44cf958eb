"""Fused means fused: no coordinate, grid or copy is put in memory on the kernel path."""

import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sampling_cases import LAYOUTS, MAPS, draw_image, library, pytorch
from stn_kernels import reference

# Large beside everything but a grid: 4 bytes a pixel of output with one channel, 8 of grid.
INPUT_SIZE, SIZE = (16, 16), (128, 160)
OUTPUT_BYTES, GRID_BYTES = 4 * SIZE[0] * SIZE[1], 8 * SIZE[0] * SIZE[1]


@pytest.fixture
def allocations(kernels, tmp_path):
    """Runs a function: its result, and the bytes of every piece of tensor memory it took, largest first."""

    def record(function):
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        with profile(activities=activities, profile_memory=True) as profiler:
            result = function()
        profiler.export_chrome_trace(str(tmp_path / "trace.json"))
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        changes = [event["args"] for event in events if event["name"] == "[memory]"]
        device = {"cpu": 0, "cuda": 1}[kernels.type]
        taken = [c["Bytes"] for c in changes if c["Device Type"] == device and c["Bytes"] > 0]
        return result, sorted(taken, reverse=True)

    return record


def make_problem(coordinate_map, device, layout="contiguous", channels=1, dtype=torch.float32):
    image = draw_image(1, channels, INPUT_SIZE, layout).to(device, dtype)
    theta = torch.tensor([[[0.9, 0.2, 0.1], [-0.3, 0.8, 0.0]]], device=device)
    return image, theta if coordinate_map == "affine" else reference.affine_grid(theta, SIZE)


def test_the_record_sees_what_is_allocated(kernels, allocations):
    """The positive control: the grid that PyTorch's two steps put in memory, beside the output."""
    problem = make_problem("affine", kernels)
    _, found = allocations(lambda: pytorch("affine", SIZE)(*problem))
    assert {GRID_BYTES, OUTPUT_BYTES} <= set(found)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("coordinate_map", MAPS)
def test_forward_allocates_its_output_only(kernels, allocations, coordinate_map, channels, layout):
    problem = [t.requires_grad_() for t in make_problem(coordinate_map, kernels, layout, channels)]
    _, found = allocations(lambda: library(coordinate_map, SIZE)(*problem))
    assert found == [channels * OUTPUT_BYTES]


@pytest.mark.parametrize("needed", ["image", "theta", "both"])
def test_backward_allocates_gradients_and_small_partial_sums(kernels, allocations, needed):
    image, theta = make_problem("affine", kernels)
    wanted = {"image": [image], "theta": [theta], "both": [image, theta]}[needed]
    for tensor in wanted:
        tensor.requires_grad_()
    output = library("affine", SIZE)(image, theta)
    grad_output = torch.ones_like(output)
    grads, found = allocations(lambda: torch.autograd.grad(output, wanted, grad_output))
    for grad in grads:  # the image's float32 buffer is what is returned
        found.remove(min(taken for taken in found if taken >= grad.untyped_storage().nbytes()))
    assert sum(found) <= GRID_BYTES / 10
    assert len(found) == (needed != "image")


def test_half_precision_adds_one_float32_buffer_of_the_image(kernels, allocations):
    image, theta = make_problem("affine", kernels, dtype=torch.float16)
    output = library("affine", SIZE)(image.requires_grad_(), theta)
    grad_output = torch.ones_like(output)
    (grad,), found = allocations(lambda: torch.autograd.grad(output, image, grad_output))
    assert found == [4 * grad.numel(), 2 * grad.numel()]
