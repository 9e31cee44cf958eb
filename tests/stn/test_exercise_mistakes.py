"""The typical wrong answers to the exercises are rejected, each with the sentence that helps."""

import math

import pytest
import torch

import stn_kernels
from stn.exercises import check

ROTATION = torch.tensor([[0.0, -1.0], [1.0, 0.0]])


def window_swapped(row, column, side, size):
    return side / size, (2 * row + side) / size - 1, (2 * column + side) / size - 1


def window_for_aligned_corners(row, column, side, size):
    before, last = (side - 1) / 2, size - 1
    return (side - 1) / last, 2 * (column + before) / last - 1, 2 * (row + before) / last - 1


def window_from_its_corner(row, column, side, size):
    return side / size, 2 * column / size - 1, 2 * row / size - 1


def inverse_with_plain_shift(theta):
    return torch.cat([torch.linalg.inv(theta[:, :, :2]), -theta[:, :, 2:]], 2)


def inverse_by_transposing(theta):
    block = theta[:, :, :2].mT
    return torch.cat([block, -block @ theta[:, :, 2:]], 2)


def turned_about(x, y, angle):
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    block, fixed = torch.tensor([[cosine, -sine], [sine, cosine]]), torch.tensor([x, y])
    return torch.cat([block, (fixed - block @ fixed)[:, None]], 1)


def turn_without_half_pixel(row, column, angle, size):
    return turned_about(2 * column / size - 1, 2 * row / size - 1, angle)


def turn_clockwise(row, column, angle, size):
    return turned_about((2 * column + 1) / size - 1, (2 * row + 1) / size - 1, -angle)


def turn_about_the_centre(row, column, angle, size):
    return turned_about(0.0, 0.0, angle)


def nearest_value(image, n, m):
    return float(image[n, m]) if 0 <= n < image.shape[0] and 0 <= m < image.shape[1] else 0.0


def nearest_half_to_even(image, a, b):
    return nearest_value(image, round(b), round(a))


def nearest_cut_off(image, a, b):
    return nearest_value(image, math.floor(b), math.floor(a))


def nearest_swapped(image, a, b):
    return nearest_value(image, math.floor(a + 0.5), math.floor(b + 0.5))


def sample_zeros(image, a, b):
    value = 0.0
    for n in (math.floor(b), math.floor(b) + 1):
        for m in (math.floor(a), math.floor(a) + 1):
            value += (1 - abs(a - m)) * (1 - abs(b - n)) * nearest_value(image, n, m)
    return value


def sample_with_clamped_neighbours(image, a, b):
    height, width = image.shape
    left, right = (min(max(math.floor(a) + i, 0), width - 1) for i in (0, 1))
    top, bottom = (min(max(math.floor(b) + i, 0), height - 1) for i in (0, 1))
    upper = (right - a) * image[top, left] + (a - left) * image[top, right]
    lower = (right - a) * image[bottom, left] + (a - left) * image[bottom, right]
    return (bottom - b) * upper + (b - top) * lower


def background_not_given_back(input, theta, size, background):
    return stn_kernels.affine_sample(input - background, theta, size)


def background_painted_over_zeros(input, theta, size, background):
    output = stn_kernels.affine_sample(input, theta, size)
    return torch.where(output == 0, background, output)


def four_neighbours_for_any_kernel(image, a, b, kernel, radius):
    return sum(
        nearest_value(image, n, m) * kernel(a - m) * kernel(b - n)
        for n in (math.floor(b), math.floor(b) + 1)
        for m in (math.floor(a), math.floor(a) + 1)
    )


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("02-1", [-1, -0.5, 0, 0.5, 1], "align_corners=True"),
        ("02-1", [-1, -0.6, -0.2, 0.2, 0.6], "left edges"),
        ("02-1", [0.2, 0.6, 1.0, 1.4, 1.8], "from -1 to 1"),
        ("02-1", [-0.8, -0.4, 0, 0.4], "should have shape"),
        ("02-1", "-4/5", "should be numbers"),
        ("02-2", 6, "which way"),
        ("02-2", -5.85, "align_corners=True"),
        ("02-2", -12, "a length of 2"),
        ("02-3", window_swapped, "t_x goes across"),
        ("02-3", window_for_aligned_corners, "right for align_corners=True"),
        ("02-3", window_from_its_corner, "not its top left corner"),
        ("02-4", [[0, 1, 0], [-1, 0, 0]], "clockwise"),
        ("02-4", torch.tensor([[0, 1, 0], [1, 0, 0]]), "swaps x and y"),
        ("02-4", ROTATION, "2 rows and 3 columns"),
        ("02-5", inverse_with_plain_shift, "through the inverse block"),
        ("02-5", inverse_by_transposing, "rotation only"),
        ("02-6", turn_without_half_pixel, "half a pixel"),
        ("02-6", turn_clockwise, "clockwise"),
        ("02-6", turn_about_the_centre, "about the centre"),
        ("03-1", [0.125, 0.375, 0.125, 0.375], "left and right are swapped"),
        ("03-1", [0.375, 0.375, 0.125, 0.125], "a goes across"),
        ("03-1", [0.75, 0.25, 0.5, 0.5], "product of two"),
        ("03-2", 8, "border padding"),
        ("03-2", 0, "half a pixel"),
        ("03-3", nearest_half_to_even, "rounds it up"),
        ("03-3", nearest_cut_off, "cuts the fraction off"),
        ("03-3", nearest_swapped, "a goes across"),
        ("03-4", sample_zeros, "zeros padding"),
        ("03-4", sample_with_clamped_neighbours, "clamp the point"),
        ("03-5", background_not_given_back, "not given back"),
        ("03-5", background_painted_over_zeros, "still mixed with 0"),
        ("03-6", four_neighbours_for_any_kernel, "radius 2 means"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    check(exercise, answer)
    verdict = capsys.readouterr().out
    assert verdict.startswith(f"Exercise {exercise}: not correct yet: ")
    assert sentence in verdict
