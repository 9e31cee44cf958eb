"""Checks of chapter 03's exercises: sampling."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise
from stn_kernels import affine_sample
from stn_kernels.reference import sample

PICTURE = torch.tensor([[3.0, 1.0, 4.0, 1.0], [5.0, 9.0, 2.0, 6.0], [5.0, 3.0, 5.0, 8.0]])
INSIDE = [(1.75, 0.25), (0.25, 0.5), (2.0, 1.0)]
AT_THE_BORDER = [(3.0, 1.0), (1.25, 2.0), (3.0, 2.0)]
OUTSIDE = [(-0.25, 0.5), (3.5, 1.25), (1.5, -2.0), (9.0, 7.0)]


@exercise("03-1")
def four_weights(answer: Any) -> str:
    mistakes = [
        ([0.125, 0.375, 0.125, 0.375], "left and right are swapped: the nearer pixel has the larger weight"),
        ([0.375, 0.375, 0.125, 0.125], "a goes across and b down; these weights have them swapped"),
        (
            [0.25, 0.75, 0.5, 0.5],
            "these are the distances; a weight is 1 minus the distance, across times down",
        ),
        ([0.75, 0.25, 0.5, 0.5], "these are the weights across and down; each pixel has the product of two"),
    ]
    expect_right(answer, [0.375, 0.125, 0.375, 0.125], "the list of weights", mistakes)
    return "They add up to 1."


@exercise("03-2")
def at_the_edge(answer: Any) -> str:
    mistakes = [
        (8.0, "that is border padding, or align_corners=True, where -1 is the centre of the first pixel"),
        (0.0, "x = -1 is only half a pixel from the centre of the first pixel, which still has a weight"),
        (6.0, "a is -1/2, between the first pixel and one that does not exist, not between the first two"),
    ]
    expect_right(answer, 4.0, "the value", mistakes)
    return "a = -1/2, so half of the weight falls on a pixel that does not exist."


@exercise("03-3")
def integer_sample(answer: Callable[..., Any]) -> str:
    def nearest(a: float, b: float, rounded: Callable[[float], int]) -> float:
        n, m = rounded(b), rounded(a)
        return PICTURE[n, m].item() if 0 <= n < 3 and 0 <= m < 4 else 0.0

    def half_up(t: float) -> int:
        return math.floor(t + 0.5)

    ties = [(0.5, 1.0), (2.5, 0.0), (1.0, 1.5), (-0.5, 0.0)]
    for a, b in [*INSIDE, *ties, *AT_THE_BORDER, (-0.75, 1.0), (1.0, 2.75), (9.0, 7.0)]:
        column, row = half_up(a), half_up(b)
        mistakes = [
            (nearest(a, b, round), "it rounds a half to the even neighbour, Equation 4 rounds it up"),
            (nearest(a, b, math.floor), "it cuts the fraction off; Equation 4 adds 0.5 first"),
            (nearest(b, a, half_up), "a goes across, to the column; b goes down, to the row"),
            (
                PICTURE[min(max(row, 0), 2), min(max(column, 0), 3)].item(),
                "outside the picture the value is 0",
            ),
        ]
        expect_right(
            answer(PICTURE, a, b), nearest(a, b, half_up), f"the value at a = {a}, b = {b}", mistakes
        )
    return "The value nearest to the point, and no slope anywhere."


@exercise("03-4")
def border_sample(answer: Callable[..., Any]) -> str:
    for a, b in [*INSIDE, *AT_THE_BORDER, *OUTSIDE]:
        mistakes = [
            (
                _with_clamped_neighbours(a, b),
                "the weights come from clamped neighbours, of which two may be the same: clamp the point",
            ),
            (_at(a, b, "zeros"), "this is zeros padding: outside, the nearest point inside should count"),
            (_at(a, b, "reflection"), "this is reflection padding"),
            (_at(b, a, "border"), "a goes across, to the column; b goes down, to the row"),
        ]
        expect_right(answer(PICTURE, a, b), _at(a, b, "border"), f"the value at a = {a}, b = {b}", mistakes)
    return "Moving the point to the border, before anything else, is all that border padding is."


@exercise("03-5")
def sample_on_background(answer: Callable[..., Any]) -> str:
    input = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(5)) - 0.4242
    theta = torch.tensor([[[1.5, 0.2, 0.1], [-0.2, 1.5, 0.0]], [[0.5, 0.0, 0.9], [0.0, 0.5, 0.0]]])
    size = (5, 8)
    for background in (-0.4242, 1.0, 0.0):
        zeros = affine_sample(input, theta, size)
        on_background = affine_sample(input - background, theta, size) + background
        mistakes = [
            (zeros, "outside is still 0"),
            (on_background - background, "the background was taken away, but not given back"),
            (zeros + background, "the background was added to the picture too; take it away before sampling"),
            (
                torch.where(zeros == 0, background, zeros),
                "at the frame, values are still mixed with 0 instead of with the background",
            ),
            (affine_sample(input, theta, size, padding_mode="border"), "this continues the border pixels"),
        ]
        expect_right(answer(input, theta, size, background), on_background, "the output", mistakes)
    return "Whatever the background, zeros padding is right for a picture whose background is 0."


@exercise("03-6")
def sample_with(answer: Callable[..., Any]) -> str:
    def bilinear(t: float) -> float:
        return max(0.0, 1.0 - abs(t))

    for a, b in [*INSIDE, *AT_THE_BORDER, *OUTSIDE]:
        mistakes = [(_at(b, a, "zeros"), "a goes across, to the column; b goes down, to the row")]
        given = answer(PICTURE, a, b, bilinear, 1)
        expect_right(given, _at(a, b, "zeros"), f"the bilinear value at a = {a}, b = {b}", mistakes)

    picture = torch.rand(9, 10, generator=torch.Generator().manual_seed(6))
    for a, b in ((3.25, 4.5), (5.0, 2.75), (6.6, 5.0)):
        x, y = (2 * a + 1) / 10 - 1, (2 * b + 1) / 9 - 1
        grid = torch.tensor([[[[x, y]]]])
        right = F.grid_sample(picture[None, None], grid, mode="bicubic", align_corners=False)[0, 0, 0, 0]
        near = [
            picture[n, m] * _cubic(a - m) * _cubic(b - n)
            for n in (math.floor(b), math.floor(b) + 1)
            for m in (math.floor(a), math.floor(a) + 1)
        ]
        mistakes = [
            (
                torch.stack(near).sum(),
                "radius 2 means four columns, from floor(a) - 1 to floor(a) + 2, and four rows",
            )
        ]
        given = answer(picture, a, b, _cubic, 2)
        expect_right(given, right, f"the bicubic value at a = {a}, b = {b}", mistakes)
    return "One function k(t) is all that tells one sampler from another."


def _at(a: float, b: float, padding_mode: str) -> Tensor:
    """PICTURE's bilinear value at a place in pixels."""
    grid = torch.tensor([[[[(2 * a + 1) / 4 - 1, (2 * b + 1) / 3 - 1]]]], dtype=torch.float64)
    return sample(PICTURE.double()[None, None], grid, (1, 1), "grid", padding_mode=padding_mode)[0, 0, 0, 0]


def _with_clamped_neighbours(a: float, b: float) -> float:
    left, right = (min(max(math.floor(a) + i, 0), 3) for i in (0, 1))
    top, bottom = (min(max(math.floor(b) + i, 0), 2) for i in (0, 1))
    return sum(
        weight_down * weight_across * PICTURE[n, m].item()
        for n, weight_down in ((top, bottom - b), (bottom, b - top))
        for m, weight_across in ((left, right - a), (right, a - left))
    )


def _cubic(t: float) -> float:
    """Keys' cubic kernel with the constant that PyTorch takes, -3/4."""
    t = abs(t)
    if t < 1:
        return 1.25 * t**3 - 2.25 * t**2 + 1
    return -0.75 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0
