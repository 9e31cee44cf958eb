"""Maps that send pixels to pixels cost no rounding, whatever the size of the image."""

import math

import pytest
import torch

from sampling_cases import EDGES_AND_CORNERS, pairwise
from stn_kernels import affine_sample, displacement_sample, projective_sample, sample
from stn_kernels.reference import half_extent

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Beyond powers of two a division by the width rounds; at 41, 49 and 61, so does w * (1 / w) in one precision.
SIZES = [(1, 1), (2, 3), (7, 5), (1, 49), (41, 61), (4095, 2), (3, 4095), (4096, 1), (1, 4096)]
VOLUMES = [(1, 1, 1), (3, 2, 5), (2, 49, 3), (1, 2, 4095)]


def parameter_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def matrix(rows, image):
    return torch.tensor([rows], dtype=parameter_dtype(image.dtype), device=image.device)


def identity_affine(image, **choices):
    axes = image.ndim - 2
    return affine_sample(image, matrix(torch.eye(axes, axes + 1).tolist(), image), image.shape[2:], **choices)


def identity_projective(image, **choices):
    axes = image.ndim - 2
    theta = matrix((3 * torch.eye(axes + 1)).tolist(), image)
    return projective_sample(image, theta, image.shape[2:], **choices)


def identity_displacement(image, **choices):
    shape = (1, image.ndim - 2, *image.shape[2:])
    zeros = torch.zeros(shape, dtype=parameter_dtype(image.dtype), device=image.device)
    return displacement_sample(image, zeros, **choices)


def identity_basis(image, **choices):
    """No displacement by three planes of large numbers."""
    dtype, size = parameter_dtype(image.dtype), image.shape[2:]
    planes = 1e3 * torch.randn(3, *size, device=image.device).to(dtype)
    zeros = torch.zeros(1, image.ndim - 2, 3, dtype=dtype, device=image.device)
    return sample(image, zeros, size, coordinate_map="residual_basis", shared=planes, **choices)


def identity_mesh(image, **choices):
    """Two triangles, the identity in each."""
    corners = [[[-1.0, 1, 1], [-1, -1, 1], [1, 1, 1]], [[-1, 1, -1], [-1, 1, 1], [1, 1, 1]]]
    triangles = torch.linalg.inv(torch.tensor(corners)).to(image.device, parameter_dtype(image.dtype))
    theta = torch.eye(2, 3).to(triangles).expand(1, 2, 2, 3)
    return sample(image, theta, image.shape[2:], coordinate_map="mesh", shared=triangles, **choices)


@pytest.mark.parametrize(
    ("identity", "size", "mode", "dtype", "align_corners"),
    pairwise(
        [identity_affine, identity_projective, identity_displacement, identity_basis, identity_mesh],
        SIZES + VOLUMES,
        ["nearest", "bilinear", "bicubic"],
        DTYPES,
        [False, True],
        valid=lambda identity, size, *_: identity is not identity_mesh or len(size) == 2,
    ),
)
def test_kernels_return_the_image_and_its_gradient_under_the_identity(
    kernels, identity, size, mode, dtype, align_corners
):
    image = torch.randn(1, 2, *size, device=kernels).to(dtype).requires_grad_()
    output = identity(image, mode=mode, align_corners=align_corners)
    assert torch.equal(output, image)
    grad_output = torch.randn_like(output)
    (grad,) = torch.autograd.grad(output, image, grad_output)
    assert torch.equal(grad, grad_output)


@pytest.mark.parametrize("by", ["theta", "pixel", "normalized"])
@EDGES_AND_CORNERS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [4095, 4096])
def test_kernels_shift_by_whole_pixels_exactly(kernels, width, dtype, align_corners, by):
    """`shift` / half extent, rounded, times half extent is `shift` again at these widths, for every shift. A
    GPU does not round the product before it adds it to a position: half a unit in the last place of the
    quotient is then left, 2**-13 pixel, unless the extent is a power of two."""
    image = torch.randn(1, 1, 2, width, device=kernels).to(dtype)
    extent = half_extent(width, align_corners)
    for shift in (1, -1365, 4094):
        if by == "theta":
            theta = matrix([[1, 0, shift / extent], [0, 1, 0]], image)
            output = affine_sample(image, theta, (2, width), align_corners=align_corners)
        else:
            displacement = torch.zeros_like(image, dtype=parameter_dtype(dtype)).repeat(1, 2, 1, 1)
            displacement[:, 0] = shift if by == "pixel" else shift / extent
            output = displacement_sample(image, displacement, unit=by, align_corners=align_corners)
        expected = torch.zeros_like(image)
        kept = width - abs(shift)
        expected[..., max(-shift, 0) :][..., :kept] = image[..., max(shift, 0) :][..., :kept]
        if kernels.type == "cuda" and by == "normalized" and not math.log2(extent).is_integer():
            steps = image.float().diff(dim=-1).abs().max()
            assert (output - expected).abs().max() <= 2**-13 * steps + torch.finfo(dtype).eps
        else:
            assert torch.equal(output, expected)


@EDGES_AND_CORNERS
@pytest.mark.parametrize("turn", ["mirrored", "upside down", "quarter turn"])
def test_kernels_mirror_and_turn_exactly(kernels, turn, align_corners):
    image = torch.randn(1, 2, 49, 49, device=kernels)
    rows, expected = {
        "mirrored": ([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], image.flip(3)),
        "upside down": ([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], image.flip(2)),
        "quarter turn": ([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]], image.rot90(1, (2, 3))),
    }[turn]
    output = affine_sample(image, matrix(rows, image), (49, 49), align_corners=align_corners)
    assert torch.equal(output, expected)


@EDGES_AND_CORNERS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(7, 5), (41, 61), (3, 4095), (1, 4096), (2, 49, 3)], ids=str)
def test_the_cpu_path_returns_the_image_up_to_its_coordinates_rounding(cpu_path, size, dtype, align_corners):
    """ATen rounds normalised coordinates, up to 2 in size, four times: 4 size eps pixels along each axis,
    between neighbours that differ by at most 1. Half precision never goes to ATen."""
    image = torch.rand(1, 2, *size).to(dtype)
    output = identity_affine(image, align_corners=align_corners)
    rounding = 0 if dtype in (torch.float16, torch.bfloat16) else 4 * sum(size) * torch.finfo(dtype).eps
    torch.testing.assert_close(output, image, rtol=0, atol=rounding)
