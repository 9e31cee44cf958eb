"""Checks of chapter 05's exercises: localisation."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise, expect


@exercise("05-1")
def parameters(answer: Any) -> str:
    first, second, full, head = 520, 10_020, 420, 63
    right = first + second + full + head
    mistakes = [
        (right - 63, "the head is missing: 20 features to 3 numbers, and 3 biases"),
        (right - 63 + 126, "attention has three numbers; these are the six of Equation 1"),
        (right - 63 - 20 - 20 - 20, "the head and the biases are missing"),
        (right - 20 - 20 - 20 - 3, "the biases are missing: one for each channel, unit and entry of theta"),
        (right - 10_020 + 520, "the second convolution reads 20 channels, not one"),
        (right + 6_000, "that is for 42 x 42 pixels: of 28 the last convolution leaves a single one"),
        (right - 420, "the fully connected layer of 20 units before the head is missing"),
    ]
    expect_right(answer, right, "the number of parameters", mistakes, tolerance=0.5)
    return "Nine tenths of them are the second convolution."


@exercise("05-2")
def grid_error(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(0)
    theta, target = torch.randn(2, 5, 6, generator=generator)
    difference = (theta - target).unflatten(1, (2, 3))
    block, shift = difference[:, :, :2].square().sum((1, 2)), difference[:, :, 2].square().sum(1)
    right = block / 3 + shift
    mistakes = [
        (block + shift, "a point at the border moves by the block's error, one in the middle by none of it"),
        ((block + shift) / 6, "that is the mean over the six entries, as in section 5.1"),
        (right.mean(), "one number for each pair of thetas was asked for, (N,)"),
        (right.sqrt(), "that is the root of it; the mean squared distance was asked for"),
        (block / 2 + shift, "the mean of x squared from -1 to 1 is not a half"),
        (block / 4 + shift, "that is the square of the mean of |x|; take the mean of the squares"),
        (2 * block / 3 + shift, "each column of the block meets one coordinate, x or y, not both"),
        (block / 3, "a shift moves every point: it counts in full"),
        (shift, "the block moves points too, the more the farther from the middle"),
        (right / 2, "a distance has both coordinates in it: add their squares, do not average them"),
    ]
    expect_right(answer(theta, target), right, "the error", mistakes)
    return "On a grid of 28 x 28 pixels, affine.grid measures the same to a tenth of a per cent."


@exercise("05-3")
def head_backward(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(7, 3, generator=generator)
    h = torch.randn(7, 4, generator=generator)
    W = torch.randn(3, 4, generator=generator)
    right = g.T @ h, g.sum(0), g @ W
    mistakes: list[list[tuple[Any, str]]] = [
        [
            (right[0].T, "the gradient of W has the shape of W, (P, F): this is its transpose"),
            (right[0] / 7, "this is the mean over the pictures; their gradients add up"),
        ],
        [
            (g.mean(0), "this is the mean over the pictures; their gradients add up"),
            (g, "one bias serves all pictures: add up their gradients"),
            (g.sum(1), "this adds up the entries of theta; add up the pictures"),
        ],
        [
            (torch.zeros_like(h), "it is zero at the start only, where W is"),
            (right[2] / 7, "every picture has features of its own: nothing to average"),
            (right[2].sum(0), "every picture has features of its own: nothing to add up"),
        ],
    ]
    given = answer(g, h, W)
    expect(isinstance(given, (tuple, list)), f"three tensors were asked for; got {type(given).__name__}")
    expect(len(given) == 3, f"three tensors were asked for; got {len(given)}")
    for name, values, wanted, known in zip("Wbh", given, right, mistakes, strict=True):
        expect_right(values, wanted, f"the gradient of {name}", known)
    return "With W = 0 the third is 0, and the body waits for the second step."


@exercise("05-4")
def larger(answer: Any) -> str:
    mistakes = [
        ([9, 1], "the pixels are counted; but a unit of theta is now also three times as many pixels"),
        ([3, 3], "a sum has nine times as many terms, too"),
        ([3, 27], "the two are swapped: it is the sum that has more terms"),
        ([3, 1 / 3], "the mean leaves the factor W / 2, which does not depend on the number of pixels"),
        ([9, 3], "three times by W / 2 and nine times by the number of pixels: multiply"),
        ([12, 3], "three times by W / 2 and nine times by the number of pixels: multiply, do not add"),
        ([8, 2], "that is for twice the size, as in section 5.8; here it is three times"),
        ([9, 9], "the number of pixels goes into the sum, W / 2 into both"),
    ]
    expect_right(answer, [27, 3], "the list of factors", mistakes)
    return "A learning rate that was right for the small one is 27 times too large."


@exercise("05-5")
def factor(answer: Any) -> str:
    mistakes = [
        (0.1, "nine tenths of the way is used up; but the slope falls with its square"),
        (0.9, "that is how far it has come, as a share of the bound; how steep is the head there?"),
        (0.81, "that is tanh squared; the slope is 1 minus that"),
        (1 - math.tanh(0.9) ** 2, "0.54 / 0.6 is tanh(h / B) already: do not take tanh again"),
        (1 - 0.54**2, "the distance counts in units of the bound: divide by 0.6"),
        (1 - (1.54 / 0.6) ** 2, "count from the start, 1, not from 0"),
        (math.atanh(0.9), "that is h / B; how steep is tanh there?"),
    ]
    expect_right(answer, 0.19, "the factor", mistakes, tolerance=1e-3)
    return "Half way to the bound it was still 0.75."


@exercise("05-6")
def centres_of_mass(answer: Callable[..., Any]) -> str:
    maps = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))

    def centres(x: Tensor, y: Tensor, mass: Tensor | None = None) -> Tensor:
        mass = maps.sum((2, 3)) if mass is None else mass
        return torch.stack([(maps.sum(2) * x).sum(2) / mass, (maps.sum(3) * y).sum(2) / mass], 2)

    columns, rows = torch.arange(6.0), torch.arange(4.0)
    x, y = (2 * columns + 1) / 6 - 1, (2 * rows + 1) / 4 - 1
    right = centres(x, y)
    mistakes = [
        (right.flip(2), "x comes before y"),
        (right.flatten(1), "the numbers are right; give them the shape (N, C, 2)"),
        (right.movedim(2, 1), "the numbers are right; give them the shape (N, C, 2)"),
        (centres(2 * columns / 5 - 1, 2 * rows / 3 - 1), "these centres are those of align_corners=True"),
        (
            centres(2 * columns / 6 - 1, 2 * rows / 4 - 1),
            "that is where pixels begin: half a pixel is missing",
        ),
        (centres(columns, rows), "these are in pixels; normalise them"),
        (centres(x, y, torch.ones(2, 3)), "divide by the mass: a brighter map is not farther right"),
        (centres(x, y, torch.full((2, 3), 24.0)), "divide by the mass, not by the number of pixels"),
        (
            centres(x, y, maps.sum((1, 2, 3))[:, None].expand(2, 3)),
            "each map has a mass of its own: divide by that",
        ),
    ]
    expect_right(answer(maps), right, "the centres", mistakes)
    moved = torch.zeros(1, 1, 5, 5)
    moved[0, 0, 1, 3] = 2.0
    expect_right(answer(moved), [[[0.4, -0.4]]], "the centre of one bright pixel of 5 x 5", [])
    return "Twenty maps give forty features, and from these a linear head can read any shift."
