"""Sampling beside scikit-image's and OpenCV's warps of the same image at the same pixels."""

import numpy as np
import pytest
import torch

from sampling_cases import assert_same, uniform
from stn_kernels import grid_sample, projective_sample

INPUT_SIZE, SIZE = (9, 12), (8, 7)
# What they call a padding mode; of the mirrors, one turns at the outer edges and one at the border's centres.
PADDINGS = pytest.mark.parametrize(
    ("padding_mode", "align_corners", "skimages", "opencvs"),
    [
        ("zeros", True, "constant", "BORDER_CONSTANT"),
        ("zeros", False, "constant", "BORDER_CONSTANT"),
        ("border", True, "edge", "BORDER_REPLICATE"),
        ("border", False, "edge", "BORDER_REPLICATE"),
        ("reflection", False, "symmetric", "BORDER_REFLECT"),
        ("reflection", True, "reflect", "BORDER_REFLECT_101"),
    ],
)


def to_pixels(align_corners, size):
    """From normalised homogeneous coordinates to pixels, x first, the first pixel's centre at 0."""
    halves = torch.tensor([(s - 1) / 2 if align_corners else s / 2 for s in reversed(size)])
    centres = torch.tensor([(s - 1) / 2 for s in reversed(size)])
    return torch.tensor([[halves[0], 0, centres[0]], [0, halves[1], centres[1]], [0, 0, 1]]).double()


@PADDINGS
def test_projective_warps_are_those_of_scikit_image(device, padding_mode, align_corners, skimages, opencvs):
    warp = pytest.importorskip("skimage.transform").warp
    image = torch.rand(1, 1, *INPUT_SIZE, dtype=torch.float64)
    theta = torch.eye(3).double() + uniform(-0.3, 0.3, 3, 3)
    theta[2, 2] = 1.2
    source, target = (to_pixels(align_corners, size) for size in (INPUT_SIZE, SIZE))
    matrix = (source @ theta @ target.inverse()).numpy()
    expected = warp(
        image[0, 0].numpy(), matrix, output_shape=SIZE, order=1, mode=skimages, preserve_range=True
    )
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    output = projective_sample(image.to(device), theta[None].to(device), SIZE, **options)
    assert_same({"output": output[0, 0]}, {"output": torch.from_numpy(expected)})


@PADDINGS
def test_points_are_sampled_as_by_opencv(device, padding_mode, align_corners, skimages, opencvs):
    """At multiples of 1 / 32 of a pixel, to which it rounds places for bilinear weights of five bits."""
    cv2 = pytest.importorskip("cv2")
    image = torch.rand(1, 1, *INPUT_SIZE)
    places = torch.randint(-40 * 32, 40 * 32, (*SIZE, 2)) / 32
    expected = cv2.remap(
        image[0, 0].numpy(),
        places[..., 0].numpy(),
        places[..., 1].numpy(),
        cv2.INTER_LINEAR,
        borderMode=getattr(cv2, opencvs),
        borderValue=0,
    )
    inverse = to_pixels(align_corners, INPUT_SIZE).inverse().float()
    grid = places @ inverse[:2, :2].T + inverse[:2, 2]
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    output = grid_sample(image.to(device), grid[None].to(device), **options)
    # The grid's rounding in float32, times at most forty pixels.
    assert_same({"output": output[0, 0]}, {"output": torch.from_numpy(np.asarray(expected))}, tolerance=1e-4)
