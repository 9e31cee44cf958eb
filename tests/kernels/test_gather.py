"""The image's gradient is gathered under maps that have a good inverse, and no pixel is missed."""

import pytest
import torch

from sampling_cases import (
    EDGES_AND_CORNERS,
    LAYOUTS,
    MODES,
    SIZE,
    TOLERANCES,
    assert_close,
    assert_right,
    converted,
    definition,
    deviation,
    draw_image,
    draw_problem,
    library,
    pairwise,
    uniform,
    values_and_gradients,
)
from stn_kernels import backend, reference
from stn_kernels.autograd import Choices

if not backend.HAS_TRITON:
    pytest.skip("the kernels need Triton", allow_module_level=True)

import triton
from triton import language as tl

from stn_kernels import launch, launch_backward
from stn_kernels.gather import is_gathered
from stn_kernels.layouts import per_transform, volume_size
from stn_kernels.template import half_extents

GATHERS = [name for name, way in launch_backward.WAYS.items() if way.gather]


@pytest.mark.parametrize(
    ("way", "mode", "axes", "align_corners", "layout", "dtype"),
    pairwise(GATHERS, MODES, (2, 3), (False, True), LAYOUTS, TOLERANCES),
    ids=str,
)
def test_gathering_agrees_with_the_reference(
    kernels, force_way, way, mode, axes, align_corners, layout, dtype
):
    force_way(way)
    assert_right(kernels, Choices(SIZE[axes], "affine", mode, "zeros", align_corners), dtype, layout)


# --- what is gathered, and what is left to the scatter -----------------------------------------------------

SMALL = {2: (3, 4), 3: (2, 3, 2)}  # input and output: gathering is the interpreter's slowest work
NAN, INFINITE = float("nan"), float("inf")
NOT_FINITE = pytest.mark.filterwarnings("ignore:.* encountered in (multiply|divide):RuntimeWarning")
THETAS = {  # with whether they are gathered
    "identity": ([[1, 0, 0], [0, 1, 0]], True),
    "quarter turn": ([[0, -1, 0], [1, 0, 0]], True),
    "mirrored and sheared": ([[-1, 0.5, 0.1], [0, 1, -0.2]], True),
    "half size": ([[2, 0, 0], [0, 2, 0]], True),
    "double size": ([[0.5, 0, 0.25], [0, 0.5, -0.25]], True),
    "far outside": ([[1, 0, 1e4], [0, 1, 0]], True),
    "outside all bounds": ([[1, 0, 1e9], [0, 1, 0]], False),
    "one pixel magnified over more than a box": ([[0.02, 0, 0.1], [0, 0.02, 0.1]], False),
    "nearly singular": ([[1, 1, 0.1], [1, 1.0001, 0]], False),
    "singular": ([[0.5, 1, 0], [0.25, 0.5, 0.1]], False),
    "one line": ([[1, 0, 0.1], [0, 0, 0.1]], False),
    "zero": ([[0, 0, 0], [0, 0, 0]], False),
    "tiny": ([[1e-20, 0, 0], [0, 1e-20, 0]], False),
    "huge": ([[1e20, 0, 0], [0, 1e20, 0]], False),
    "NaN": ([[1, 0, NAN], [0, 1, 0]], False),
    "infinite": ([[1, 0, 0], [0, INFINITE, 0]], False),
}


@triton.jit
def is_gathered_kernel(
    result, parameters, sizes, TAPS: tl.constexpr, AXES: tl.constexpr, COMPUTE: tl.constexpr
):
    m = tl.program_id(0)
    own = (parameters[0] + m * parameters[1], parameters[2])
    extents = half_extents(sizes, False, COMPUTE)
    tl.store(result + m, is_gathered(own, sizes, extents, TAPS, AXES, COMPUTE).to(tl.int8))


def which_are_gathered(theta, input_size, size, taps=2):
    result = torch.empty(len(theta), dtype=torch.int8, device=theta.device)
    sizes = (volume_size(input_size), volume_size(size))
    compute = launch.TRITON_DTYPES[theta.dtype]
    is_gathered_kernel[(len(theta),)](result, per_transform(theta), sizes, taps, len(size), compute)
    return result.bool().tolist()


def special_thetas(axes, dtype, device):
    """In 3-D the same in x and y, and the identity in z."""
    theta = torch.eye(axes, axes + 1, dtype=dtype, device=device).repeat(len(THETAS), 1, 1)
    theta[:, :2, [0, 1, -1]] = torch.tensor([numbers for numbers, _ in THETAS.values()]).to(theta)
    return theta


@NOT_FINITE
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("axes", [2, 3])
def test_maps_that_have_a_good_inverse_are_gathered(kernels, axes, dtype):
    theta = special_thetas(axes, dtype, kernels)
    actual = which_are_gathered(theta, SMALL[axes], SMALL[axes])
    assert dict(zip(THETAS, actual, strict=True)) == {
        name: gathered for name, (_, gathered) in THETAS.items()
    }


@NOT_FINITE
@pytest.mark.parametrize(
    ("way", "mode", "axes", "dtype", "one_image"),
    pairwise(
        *[GATHERS, ("bilinear", "bicubic"), (2, 3), TOLERANCES, (False, True)],
        valid=lambda way, mode, axes, *_: axes == 2 or mode == "bilinear",
    ),
    ids=str,
)
def test_what_is_left_to_the_scatter_agrees_beside_what_is_gathered(
    kernels, force_way, way, mode, axes, dtype, one_image
):
    """With an image for each transform, and with one for all, whose gradient then comes by both ways."""
    force_way(way)
    size = SMALL[axes]
    theta = special_thetas(axes, dtype, kernels)
    image = draw_image(1 if one_image else len(theta), 3, size).to(kernels, dtype).requires_grad_()
    grad_output = draw_image(len(theta), 3, size).to(kernels, dtype)
    choices = Choices(size, "affine", mode)
    solvers = (library(choices), definition(choices))
    actual, expected = (torch.autograd.grad(s(image, theta), image, grad_output)[0] for s in solvers)
    assert deviation(actual, expected) <= TOLERANCES[dtype]


def thetas_at_ties(count, input_size, size, dtype):
    """Random maps, moved so that one output pixel each lies half-way between two pixels along every axis: on
    which side is decided by rounding."""
    axes = len(size)
    theta = torch.randn(count, axes, axes + 1, dtype=torch.float64)
    theta *= torch.logspace(-0.5, 1.5, count)[:, None, None]
    pixel = torch.stack([torch.randint(s, (count,)) for s in reversed(size)], -1)
    extents = torch.tensor(reference.half_extents(input_size, False)).double()
    targets = torch.tensor([s / 2 for s in reversed(size)]).double()
    at = (pixel - targets + 0.5) / targets
    tie = torch.stack([torch.randint(-1, s + 1, (count,)) for s in reversed(input_size)], -1) + 0.5
    offset = tie - (extents - 0.5)
    theta[..., -1] = offset / extents - (theta[..., :-1] @ at[..., None])[..., 0]
    return theta.to(dtype)


def assert_same_bits(force_way, choices, image, theta, grad_output):
    """Gathered and scattered: of whole numbers, whose sums are exact in any order."""
    grads = {}
    for way in ("gather", "scatter"):
        force_way(way)
        (grads[way],) = torch.autograd.grad(library(choices)(image, theta), image, grad_output)
    assert torch.equal(grads["gather"], grads["scatter"])
    assert grads["scatter"].any()


@pytest.mark.parametrize(
    ("mode", "axes", "dtype"), pairwise(("nearest", "integer"), (2, 3), TOLERANCES), ids=str
)
def test_no_pixel_that_contributes_is_missed(kernels, force_way, mode, axes, dtype):
    """Weights are one and gradients whole numbers: sums are exact, and a missed pixel makes them unequal."""
    input_size, size = {2: ((4, 5), (5, 6)), 3: ((2, 3, 4), (3, 2, 4))}[axes]
    ties = thetas_at_ties(16 if axes == 2 else 8, input_size, size, dtype)
    turns = torch.round(uniform(-4, 4, *ties[::2].shape)).to(dtype) / 2  # in whole and half pixels, exact
    theta = torch.cat([ties, turns]).to(kernels)
    assert sum(which_are_gathered(theta, input_size, size, 1)) >= len(theta) // 2
    image = torch.zeros(len(theta), 1, *input_size, dtype=dtype, device=kernels, requires_grad=True)
    grad_output = torch.randint(1, 1000, (len(theta), 1, *size)).to(image)
    choices = Choices(size, "affine", mode)
    assert_same_bits(force_way, choices, image, theta, grad_output)


def test_in_a_wide_image_a_pixel_6e_15_beyond_a_tie_is_not_missed(kernels, force_way):
    """So little that the widened bounds must themselves be computed in float64."""
    theta = [[-0.5680461567926923, 0.22372451396342136, 0.5205001307358635]]
    theta += [[0.7581767476490726, 0.3683938172975975, 0.18419690864879876]]
    theta = torch.tensor([theta], dtype=torch.float64, device=kernels)
    image = torch.zeros(1, 1, 2, 301, dtype=torch.float64, device=kernels, requires_grad=True)
    grad_output, choices = torch.ones(1, 1, 2, 3).to(image), Choices((2, 3), "affine", "nearest")
    assert_same_bits(force_way, choices, image, theta, grad_output)


@EDGES_AND_CORNERS
@pytest.mark.parametrize("input_size", [(1, 1), (1, 7), (6, 1)], ids=str)
def test_images_of_one_row_column_or_pixel_are_gathered_or_left(
    kernels, force_way, input_size, align_corners
):
    force_way("gather")
    choices = Choices((4, 5), "affine", align_corners=align_corners)
    tensors, grad_output = draw_problem(choices, input_size)
    actual = values_and_gradients(library(choices), converted(tensors, kernels), grad_output.to(kernels))
    assert_close(actual, values_and_gradients(definition(choices), tensors, grad_output))
