"""Checks of chapter 18's exercises: in your own project."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stn.displacement_fields import jacobian_determinant
from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise
from stn_kernels import displacement_sample, grid_sample


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _grid(flow: Tensor, extents: tuple[int, int], offset: int) -> Tensor:
    height, width = flow.shape[2:]
    a = torch.arange(width).to(flow) + flow[:, 0]
    b = torch.arange(height).to(flow)[:, None] + flow[:, 1]
    return torch.stack([(2 * a + offset) / extents[0] - 1, (2 * b + offset) / extents[1] - 1], dim=-1)


@exercise("18-1")
def grid_of_flow(answer: Callable[[Tensor], Any]) -> str:
    flow = _random(2, 2, 5, 7)
    right = _grid(flow, (6, 4), 0)
    mistakes = [
        (_grid(flow, (7, 5), 1), "that is the grid for align_corners=False"),
        (_grid(flow, (7, 5), 0), "-1 and 1 are the centres of the border pixels: W - 1 pixels apart, not W"),
        (_grid(flow, (4, 6), 0), "x is divided by the width, y by the height"),
        (right.flip(-1), "x comes before y"),
        (_grid(flow.flip(1), (6, 4), 0), "the flow's x comes before its y"),
        (right.movedim(-1, 1), "x and y come last in a grid"),
        (right - _grid(torch.zeros_like(flow), (6, 4), 0), "add each pixel's own place"),
        (_grid(-flow, (6, 4), 0), "a pixel's place plus its flow, not minus"),
    ]
    expect_right(answer(flow), right, "the grid", mistakes, tolerance=1e-6)
    return "displacement_sample(image, flow) does it without the grid."


@exercise("18-2")
def warp_volume(answer: Callable[[Tensor, Tensor], Any]) -> str:
    volume, field = _random(1, 1, 4, 5, 6), _random(1, 3, 4, 5, 6)
    right = displacement_sample(volume, field.flip(1))
    mistakes = [
        (displacement_sample(volume, field), "displacement_sample takes x before y before z"),
        (displacement_sample(volume, field[:, [1, 0, 2]]), "all three are the other way round: x, y, z"),
        (displacement_sample(volume, field[:, [2, 0, 1]]), "z is last and y in the middle"),
        (displacement_sample(volume, field.flip(1), unit="normalized"), "the field is in voxels"),
        (displacement_sample(volume, -field.flip(1)), "a voxel's place plus its displacement, not minus"),
    ]
    expect_right(answer(volume, field), right, "the warped volume", mistakes, tolerance=1e-6)
    return "A network of your own may predict x, y, z, and saves the flip."


@exercise("18-3")
def full_resolution(answer: Callable[[Tensor], Any]) -> str:
    field = _random(1, 2, 3, 4)
    larger = functional.interpolate(field, scale_factor=2, mode="bilinear", align_corners=False)
    corners = functional.interpolate(field, scale_factor=2, mode="bilinear", align_corners=True)
    nearest = functional.interpolate(field, scale_factor=2)
    mistakes = [
        (larger, "a pixel of the small image is two of the large one: the numbers double, too"),
        (larger / 2, "a pixel of the small image is two of the large one: the numbers double"),
        (4 * larger, "twice as many pixels across, twice as many down: each number doubles, once"),
        (2 * corners, "that is interpolated with align_corners=True"),
        (2 * nearest, "that repeats each vector; interpolate bilinearly"),
    ]
    expect_right(answer(field), 2 * larger, "the field", mistakes, tolerance=1e-6)
    return "VoxelMorph predicts at half the resolution: a field is smooth, and four times fewer numbers do."


@exercise("18-4")
def known_difference(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> str:
    first, second, flow = _random(2, 1, 8, 9), _random(2, 1, 8, 9).flip(3), 1.5 * _random(2, 2, 8, 9)
    difference = (displacement_sample(second, flow) - first).abs()
    seen = displacement_sample(torch.ones_like(second), flow)
    known = seen > 0.999
    backwards = displacement_sample(torch.ones_like(second), -flow) > 0.999
    mistakes = [
        (difference.mean(), "that is the mean over all pixels; leave out where the flow leaves the image"),
        ((difference * known).mean(), "divide by the number of pixels that are known, not of all"),
        (difference[known].sum(), "that is the sum; the mean was asked for"),
        (difference[seen > 0].mean(), "where one neighbour of four is missing, padding counts: leave it out"),
        ((displacement_sample(second, -flow) - first).abs()[backwards].mean(), "warp by plus the flow"),
        (difference[known].square().mean(), "the absolute difference was asked for, not its square"),
        (
            (displacement_sample(first, flow) - second).abs()[known].mean(),
            "the second image is warped back, to be like the first",
        ),
        ((second - first).abs()[known].mean(), "warp the second image first"),
    ]
    expect_right(
        answer(first, second, flow), difference[known].mean(), "the difference", mistakes, tolerance=1e-6
    )
    return "Without a mask, a flow network learns to push things out of the picture, or not to."


@exercise("18-5")
def share_of_folds(answer: Callable[[Tensor], Any]) -> str:
    field = 0.7 * _random(2, 2, 9, 12)
    determinant = jacobian_determinant(field)
    slopes = jacobian_determinant(field.flip(1))
    across, down = field.diff(dim=3)[:, :, :-1], field.diff(dim=2)[..., :-1]
    bare = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    mistakes = [
        ((determinant > 0).double().mean(), "positive is as it should be; count the negative ones"),
        ((bare < 0).double().mean(), "the map is p + field(p): add 1 to the two slopes of the diagonal"),
        ((determinant < 0).sum(), "that is how many; the share was asked for"),
        ((slopes < 0).double().mean(), "channel 0 is x, the last dimension"),
        ((determinant < 1).double().mean(), "below 1 it shrinks; below 0 it folds"),
    ]
    expect_right(answer(field), (determinant < 0).double().mean(), "the share", mistakes, tolerance=1e-6)
    return "Papers on registration report this beside the error."


@exercise("18-6")
def pixels_off(answer: Any) -> str:
    mistakes = [
        (2.0, "neighbouring numbers are that far apart, and rounding is off by half of it at most"),
        (0.5, "between one half and 1 the leading bit stands for one half: the eighth for 2^-8"),
        (2**-9, "that is in half widths; a half width is 512 pixels"),
        (2**-8, "that is the spacing in half widths; in pixels, and half of it"),
    ]
    expect_right(answer, 1.0, "how many pixels", mistakes, tolerance=1e-6)
    return "float32 keeps 24 bits: 65,536 times finer."


@exercise("18-7")
def attended(answer: Callable[..., Any]) -> str:
    value, locations = _random(2, 12, 5), _random(2, 3, 2, 2).sigmoid()
    feature_map = value.transpose(1, 2).unflatten(2, (3, 4))
    right = grid_sample(feature_map, 2 * locations - 1)
    mistakes = [
        (grid_sample(feature_map, locations), "locations go from 0 to 1, a grid from -1 to 1"),
        (
            grid_sample(feature_map, 2 * locations - 1, align_corners=True),
            "from edge to edge: align_corners=False",
        ),
        (
            grid_sample(value.reshape(2, 5, 3, 4), 2 * locations - 1),
            "reshape mixes channels and places: the channels come last in value, so transpose first",
        ),
        (
            grid_sample(value.transpose(1, 2).unflatten(2, (4, 3)), 2 * locations - 1),
            "row by row: (height, width)",
        ),
        (right.permute(0, 2, 3, 1), "the samples are right; their shape is (N, C, Q, P)"),
        (grid_sample(feature_map, 2 * locations.flip(-1) - 1), "x comes before y already"),
    ]
    expect_right(answer(value, 3, 4, locations), right, "the samples", mistakes, tolerance=1e-6)
    return "Weighted by the attention and summed over P and over scales, that is the whole layer."
