"""Fused means fused: no coordinate, grid or copy is put in memory on the kernel path."""

import itertools
import json
import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sampling_cases import (
    AXES,
    LAYOUTS,
    MAPS,
    converted,
    draw_image,
    draw_shared,
    has_dimension,
    library,
    pairwise,
    propose_parameters,
    pytorch,
)
from stn_kernels import backend, splat, tps_sample
from stn_kernels.autograd import Choices

if not backend.HAS_TRITON:
    pytest.skip("the kernels need Triton", allow_module_level=True)

from stn_kernels import launch, launch_backward

# Large outputs of small images, and the other way round.
SMALL = {2: (16, 16), 3: (4, 8, 8)}
LARGE = {2: (64, 80), 3: (8, 20, 32)}
PIXELS = 64 * 80
WAYS = pytest.mark.parametrize("way", launch_backward.WAYS)


@pytest.fixture
def allocations(tmp_path):
    """Runs a function: its result, and the bytes of every piece of tensor memory it took, largest first."""

    def record(function):
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        with profile(activities=activities, profile_memory=True) as profiler:
            result = function()
        profiler.export_chrome_trace(str(tmp_path / "trace.json"))
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        changes = [event["args"] for event in events if event["name"] == "[memory]"]
        device = 1 if torch.cuda.is_available() else 0
        taken = [c["Bytes"] for c in changes if c["Device Type"] == device and c["Bytes"] > 0]
        return result, sorted(taken, reverse=True)

    return record


def make_problem(
    choices, input_size, device, dtype=torch.float32, channels=1, transforms=1, layout="contiguous"
):
    """The four tensors; there may be kinks. Affine maps shrink, so that a gather has little to visit."""
    shared = draw_shared(choices.coordinate_map, choices.size)
    parameters = propose_parameters(choices.coordinate_map, transforms, input_size, choices.size, shared)
    if choices.coordinate_map == "affine":
        parameters = 8 * parameters
    fill = torch.zeros(channels) if choices.padding_mode == "constant" else None
    image = draw_image(1, channels, input_size, layout)
    others = converted((parameters, shared, fill), device, torch.float32)
    return (image.to(device, dtype), *others)


# PyTorch's allocator hands out multiples of so many bytes on a GPU.
UNIT = 512 if torch.cuda.is_available() else 1


def without(found, tensors):
    """What was allocated beside these tensors; float32 gradients of half-precision ones come on top."""
    rest = list(found)
    for tensor in tensors:
        rest.remove(-(-tensor.untyped_storage().nbytes() // UNIT) * UNIT)
    return rest


def at_most(found, most):
    """Whether that is all that was allocated, but for the allocator's units."""
    return sum(found) <= most + len(found) * (UNIT - 1)


def test_the_record_sees_what_is_allocated(kernels, allocations):
    """The positive control: the grid that PyTorch's two steps put in memory, beside the output."""
    choices = Choices(LARGE[2], "affine")
    tensors = make_problem(choices, SMALL[2], kernels)
    _, found = allocations(lambda: pytorch(choices)(*tensors))
    assert {2 * 4 * PIXELS, 4 * PIXELS} <= set(found)


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "layout", "channels", "padding_mode", "mode"),
    pairwise(
        *[MAPS, (2, 3), LAYOUTS, (1, 4), ("zeros", "reflection", "constant"), ("nearest", "bilinear")],
        valid=lambda m, axes, *_: has_dimension(m, axes),
    ),
)
def test_forward_allocates_its_output_only(
    kernels, allocations, coordinate_map, axes, layout, channels, padding_mode, mode
):
    choices = Choices(LARGE[axes], coordinate_map, mode, padding_mode)
    tensors = make_problem(choices, SMALL[axes], kernels, channels=channels, layout=layout)
    tensors[0].requires_grad_()
    _, found = allocations(lambda: library(choices)(*tensors))
    fill = [4 * channels] if padding_mode == "constant" else []
    assert found in ([channels * 4 * PIXELS], [channels * 4 * PIXELS, *fill])


def backward(allocations, choices, tensors, wanted):
    """Gradients, and what was allocated for them."""
    for tensor in wanted:
        tensor.requires_grad_()
    output = library(choices)(*tensors)
    grad_output = torch.ones_like(output)
    return allocations(lambda: torch.autograd.grad(output, wanted, grad_output))


@pytest.mark.parametrize(
    ("coordinate_map", "axes", "way"),
    [
        (m, a, way)
        for m, a, way in itertools.product(MAPS, (2, 3), launch_backward.WAYS)
        if has_dimension(m, a) and (m == "affine" or "gather" not in way)
    ],
)
def test_backward_of_a_large_output_allocates_gradients_and_small_sums(
    kernels, allocations, monkeypatch, coordinate_map, axes, way
):
    """Beside the gradients: a buffer of the image, here small, and at most a tenth of a grid's bytes."""
    monkeypatch.setattr(launch_backward, "forced_way", way)
    choices = Choices(LARGE[axes], coordinate_map)
    tensors = make_problem(choices, SMALL[axes], kernels)
    wanted = [t for t in tensors if t is not None]
    grads, found = backward(allocations, choices, tensors, wanted)
    assert at_most(without(found, grads), 8 * tensors[0].numel() + axes * 4 * PIXELS / 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("needed", [["image"], ["image", "theta"]], ids="-".join)
@WAYS
@AXES
def test_backward_to_a_large_image_allocates_its_gradient_and_one_buffer(
    kernels, allocations, monkeypatch, axes, way, needed, dtype
):
    monkeypatch.setattr(launch_backward, "forced_way", way)
    choices = Choices(SMALL[axes], "affine")
    tensors = make_problem(choices, LARGE[axes], kernels, dtype)
    (grad, *_), found = backward(allocations, choices, tensors, tensors[: len(needed)])
    large = [taken for taken in found if taken >= PIXELS]
    buffer = 8 if "fixed point" in way else 4
    is_result = way == "scatter" and dtype == torch.float32
    assert large == [buffer * PIXELS] if is_result else [buffer * PIXELS, grad.element_size() * PIXELS]


@WAYS
def test_half_precision_gradients_of_the_output_are_not_copied(kernels, allocations, monkeypatch, way):
    monkeypatch.setattr(launch_backward, "forced_way", way)
    choices = Choices(LARGE[2], "affine")
    tensors = make_problem(choices, SMALL[2], kernels, torch.float16)
    _, found = backward(allocations, choices, tensors, tensors[:2])
    assert at_most(found, 10 * tensors[0].numel() + 2 * 4 * PIXELS / 10)


def test_the_gradient_of_the_fill_allocates_one_channel_of_the_output(kernels, allocations):
    """Where the fill was taken: half a grid in 2-D, and only if somebody wants this gradient."""
    choices = Choices(LARGE[2], "affine", padding_mode="constant")
    tensors = make_problem(choices, SMALL[2], kernels)
    _, found = backward(allocations, choices, tensors, tensors[3:])
    assert found[0] == 4 * PIXELS
    assert at_most(found[1:], 64)


def test_many_control_points_make_small_sums_too(kernels, allocations, monkeypatch):
    """Rows of 86 sums, each over two of the sixteen tiles: with one for each they would not be small."""
    monkeypatch.setattr(launch_backward, "block_shape", lambda *_, **__: launch.Blocks(8, 32, 1))
    choices = Choices((64, 64), "tps")
    shared = torch.rand(40, 2, device=kernels)
    weights = torch.zeros(1, 2, 43, device=kernels)
    tensors = (torch.randn(1, 1, *SMALL[2], device=kernels), weights, shared, None)
    grads, found = backward(allocations, choices, tensors, [weights])
    assert at_most(without(found, grads), 2 * 4 * 64 * 64 / 10)


@pytest.mark.parametrize("count", [3, 25])
def test_a_spline_allocates_nothing_larger_than_its_output_and_gradients(kernels, allocations, count):
    """From points to pixels, the system of equations included. Its features would take `count` images."""
    generator = torch.Generator().manual_seed(0)
    target = 2 * torch.rand(count, 2, generator=generator).to(kernels) - 1
    source = target + 0.1 * torch.randn(1, count, 2, generator=generator).to(kernels)
    image = torch.randn(1, 1, *LARGE[2], generator=generator).to(kernels)
    tensors = [tensor.requires_grad_() for tensor in (image, source, target)]
    # The first time a GPU's libraries for linear algebra take memory for themselves.
    torch.autograd.grad(tps_sample(image, source, LARGE[2], target_points=target).sum(), tensors)
    output, found = allocations(lambda: tps_sample(image, source, LARGE[2], target_points=target))
    system = 8 * 2 * (count + 3) ** 2  # float64: the K^2 differences between target points are pairs
    assert found[0] == 4 * PIXELS
    assert found[1] < system + UNIT < 4 * PIXELS
    grad_output = torch.ones_like(output)
    _, found = allocations(lambda: torch.autograd.grad(output, tensors, grad_output))
    assert found[0] == 4 * PIXELS
    assert found[1] < max(system, 2 * 4 * PIXELS // 10) + UNIT  # or the programs' sums


@AXES
@pytest.mark.parametrize("coordinate_map", ["affine", "grid"])
def test_an_image_is_not_copied_for_its_transforms(device, allocations, coordinate_map, axes):
    choices = Choices(SMALL[axes], coordinate_map)
    tensors = make_problem(choices, LARGE[axes], device, transforms=4)
    _, found = allocations(lambda: library(choices)(*tensors))
    assert max(found) <= axes * 4 * 4 * math.prod(SMALL[axes]) < 4 * PIXELS


@pytest.mark.parametrize("return_count", [False, True])
def test_splatting_allocates_its_images_only(kernels, allocations, return_count):
    values = torch.randn(1, 1, *LARGE[2], device=kernels)
    grid = torch.rand(1, *LARGE[2], 2, device=kernels)
    _, found = allocations(lambda: splat(values, grid, SMALL[2], return_count=return_count))
    images = 1 + return_count
    assert at_most(found, images * 4 * (math.prod(SMALL[2]) + 2))


@AXES
@pytest.mark.parametrize("coordinate_map", ["affine", "grid"])
def test_antialiasing_stores_no_samples(kernels, allocations, coordinate_map, axes):
    """Forward the output only. Backward as without, but for footprints' gradients where parameters belong
    to pixels: (1 + axes) times a grid."""
    choices = Choices(LARGE[axes], coordinate_map, antialias=True)
    image, parameters, *others = make_problem(choices, SMALL[axes], kernels)
    tensors = (image, parameters * (0.1 if coordinate_map == "grid" else 0.5), *others)
    _, found = allocations(lambda: library(choices)(*tensors))
    assert found == [4 * PIXELS]
    grads, found = backward(allocations, choices, tensors, list(tensors[:2]))
    footprints = (1 + axes) * axes * 4 * PIXELS if coordinate_map == "grid" else 0
    rest = without(found, grads)
    assert footprints <= sum(rest)
    assert at_most(rest, footprints + 8 * image.numel() + axes * 4 * PIXELS / 10)


@pytest.mark.parametrize("coordinate_map", ["affine", "projective", "tps", "mesh", "basis"])
def test_four_transforms_of_an_image_take_the_memory_of_one_and_three_outputs(
    kernels, allocations, coordinate_map
):
    """Forward and backward together: neither the image nor its gradient is held once for each."""
    choices = Choices(LARGE[2], coordinate_map)
    taken = {}
    for transforms in (1, 4):
        tensors = make_problem(choices, LARGE[2], kernels, channels=4, transforms=transforms)
        wanted = [t.requires_grad_() for t in tensors if t is not None]
        grad_output = torch.ones(transforms, 4, *LARGE[2], device=tensors[0].device)

        def step(tensors=tensors, wanted=wanted, grad_output=grad_output):
            return torch.autograd.grad(library(choices)(*tensors), wanted, grad_output)

        taken[transforms] = sum(allocations(step)[1])
    output = 4 * 4 * PIXELS
    assert taken[4] <= 1.2 * taken[1] + 3 * output
