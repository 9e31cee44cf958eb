"""Maps that send pixels to pixels cost no rounding, whatever the size of the image."""

import pytest
import torch

from sampling_cases import EDGES_AND_CORNERS, size_id
from stn_kernels import affine_sample

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Beyond powers of two a division by the width rounds; at 41, 49 and 61, so does w * (1 / w) in one precision.
SIZES = [(1, 1), (2, 3), (7, 5), (1, 49), (41, 61), (4095, 2), (3, 4095)]
IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def transform(image, matrix, align_corners):
    """`image` under one theta, in its own size."""
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    theta = torch.tensor([matrix], dtype=dtype, device=image.device)
    return affine_sample(image, theta, image.shape[2:], align_corners=align_corners)


@EDGES_AND_CORNERS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=size_id)
def test_kernels_return_the_image_under_the_identity(kernels, size, dtype, align_corners):
    image = torch.randn(1, 2, *size, device=kernels).to(dtype)
    assert torch.equal(transform(image, IDENTITY, align_corners), image)


@EDGES_AND_CORNERS
@pytest.mark.parametrize("matrix", ["mirrored", "upside down", "quarter turn"])
def test_kernels_mirror_and_turn_exactly(kernels, matrix, align_corners):
    image = torch.randn(1, 2, 49, 49, device=kernels)
    matrix, expected = {
        "mirrored": ([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], image.flip(3)),
        "upside down": ([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], image.flip(2)),
        "quarter turn": ([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]], image.rot90(1, (2, 3))),
    }[matrix]
    assert torch.equal(transform(image, matrix, align_corners), expected)


@EDGES_AND_CORNERS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES, ids=size_id)
def test_the_cpu_path_returns_the_image_up_to_its_coordinates_rounding(cpu_path, size, dtype, align_corners):
    """ATen rounds normalised coordinates, up to 2 in size, four times: 4 size eps pixels along either axis,
    between neighbours that differ by at most 1. Half precision never goes to ATen."""
    image = torch.rand(1, 2, *size).to(dtype)
    output = transform(image, IDENTITY, align_corners)
    rounding = 0 if dtype in (torch.float16, torch.bfloat16) else 4 * sum(size) * torch.finfo(dtype).eps
    torch.testing.assert_close(output, image, rtol=0, atol=rounding)
