"""Checks of chapter 15's exercises: three dimensions."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.data import rotation_about_axes
from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise

VOLUME = torch.tensor(
    [
        [[3.0, 1.0, 4.0, 1.0], [5.0, 9.0, 2.0, 6.0], [5.0, 3.0, 5.0, 8.0]],
        [[9.0, 7.0, 9.0, 3.0], [2.0, 3.0, 8.0, 4.0], [6.0, 2.0, 6.0, 4.0]],
    ]
)  # D, H, W = 2, 3, 4
INSIDE = [(1.25, 0.5, 0.75), (2.75, 1.5, 0.25), (3.0, 2.0, 1.0), (0.0, 1.0, 0.5)]
OUTSIDE = [(-0.25, 0.5, 0.5), (3.5, 1.25, -0.5), (1.5, 2.25, 1.75), (9.0, 0.0, 0.0), (1.0, 1.0, -3.0)]


@exercise("15-1")
def two_voxels_along_y(answer: Any) -> str:
    def shifted(row: int, amount: float) -> Tensor:
        theta = torch.eye(3, 4)
        theta[row, 3] = amount
        return theta

    mistakes = [
        (shifted(1, 2.0), "theta counts in halves of the volume; two voxels are 2 times 2 / 24 of it"),
        (shifted(1, 2 / 24), "the volume is 2 long, not 1: a voxel along y is 2 / 24"),
        (shifted(1, 4 / 20), "20 is the number of layers; along y there are 24 voxels"),
        (shifted(1, 4 / 28), "28 is the number of columns; along y there are 24 voxels"),
        (shifted(1, -4 / 24), "the sign: theta says where to look, and larger rows are further down"),
        (shifted(1, 4 / 23), "that is a step between voxels for align_corners=True"),
        (shifted(0, 4 / 24), "the first row is x"),
        (shifted(2, 4 / 24), "the third row is z; y is the second in either order"),
    ]
    expect_right(answer, shifted(1, 4 / 24), "theta", mistakes)
    return "The second row, and the second of the sizes: y is the one that both orders agree on."


@exercise("15-2")
def eight_weights(answer: Any) -> str:
    def weights(a: float, b: float, c: float) -> list[float]:
        pairs = [(1 - t, t) for t in (c, b, a)]
        return [near * row * column for near, row, column in itertools.product(*pairs)]

    mistakes = [
        (weights(0.75, 0.5, 0.2), "a goes across, along the columns, which change fastest in the list"),
        (weights(0.8, 0.5, 0.25), "far and near are swapped: the nearer a neighbour, the more it counts"),
        ([0.125] * 8, "the eight are equal only in the very middle between all of them"),
        (weights(0.2, 0.5, 0.25), "c lies three quarters of the way from layer 3 to layer 4"),
    ]
    expect_right(answer, weights(0.2, 0.5, 0.75), "the list of weights", mistakes)
    return "They add up to 1, as the parts of a cube do."


@exercise("15-3")
def trilinear(answer: Callable[..., Any]) -> str:
    for a, b, c in [*INSIDE, *OUTSIDE]:
        right = _trilinear(a, b, c)
        nearest = min(max(a, 0.0), 3.0), min(max(b, 0.0), 2.0), min(max(c, 0.0), 1.0)
        layer = min(max(math.floor(c + 0.5), 0), 1)
        mistakes = [
            (_trilinear(c, b, a), "a goes along the columns, the last index; c along the layers, the first"),
            (_trilinear(*nearest), "what does not exist counts 0; this goes on with the border's voxels"),
            (_trilinear(a, b, layer), "this reads one layer: c needs two neighbours as a and b do"),
        ]
        expect_right(answer(VOLUME, a, b, c), right, f"the value at a = {a}, b = {b}, c = {c}", mistakes)
    return "Three loops of two: in d dimensions 2 to the power of d neighbours."


@exercise("15-4")
def first_y_then_x(answer: Any) -> str:
    quarter = torch.pi / 2
    x, y = rotation_about_axes(torch.tensor([[quarter, 0, 0], [0, quarter, 0]], dtype=torch.float64))
    mistakes = [
        (y @ x, "this turns about x first: what is done first stands on the right"),
        (x.T @ y.T, "both the wrong way round: positive angles take y towards z, and z towards x"),
        ((x @ y).T, "this is the inverse: it undoes the two turns"),
        (x.T @ y, "the turn about x goes the wrong way: y should go towards z"),
        (x @ y.T, "the turn about y goes the wrong way: z should go towards x"),
    ]
    expect_right(answer, x @ y, "the rotation", mistakes)
    return "x goes to y, y to z, z to x: a third of a turn about the diagonal."


@exercise("15-5")
def gradient_of_projection(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(5)
    for N, C, D, H, W in ((1, 1, 3, 2, 2), (2, 3, 5, 4, 3)):
        image = torch.randn(N, C, H, W, generator=generator)
        right = image[:, :, None].repeat(1, 1, D, 1, 1)
        first = torch.zeros_like(right)
        first[:, :, 0] = image
        mistakes = [
            (right / D, "that is the gradient of a mean; the sum gives each voxel all of it"),
            (first, "every voxel of the ray counts, not the first alone"),
            (image, "each voxel has a gradient: the result has D layers"),
            (image[:, :, None], "each voxel has a gradient: the result has D layers, not one"),
            (right.movedim(2, -1), "the layers are the third dimension, before rows and columns"),
        ]
        expect_right(answer(image, D), right, f"the gradient of D = {D} layers", mistakes)
    return "A projection forgets the depth, so its gradient cannot tell depths apart."


@exercise("15-6")
def what_a_grid_costs(answer: Any) -> str:
    grid, theta = 32 * 40 * 50 * 60 * 12, 32 * 48
    mistakes = [
        ([grid // 12 * 8, theta], "a place in space has three coordinates"),
        ([grid // 12 * 16, theta], "the 1 of (x, y, z, 1) is not part of the grid"),
        ([grid // 4, theta // 4], "those are numbers; float32 has 4 bytes"),
        ([grid // 4, theta], "the first counts numbers; float32 has 4 bytes"),
        ([grid // 32, theta // 32], "that is one volume; the batch has 32"),
        ([grid // 32, theta], "each of the 32 volumes has its own grid"),
        ([grid * 2, theta], "the channels share a grid"),
        ([grid, 32 * 24], "theta has 3 x 4 numbers"),
    ]
    expect_right(answer, [grid, theta], "the list of bytes", mistakes, tolerance=0.5)
    return "Thirty thousand times as much, to say the same."


@exercise("15-7")
def tilt(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(7)
    theta = 0.6 * torch.randn(5, 4, generator=generator)
    zero = torch.zeros_like(theta[:, :1])

    def matrix(rotation: Tensor, *shift: Tensor) -> Tensor:
        return torch.cat([rotation, torch.stack(shift, 1)[:, :, None]], 2)

    def turned(*angles: Tensor) -> Tensor:
        return rotation_about_axes(torch.stack(angles, 1))

    x, y, t_x, t_y = theta.unbind(1)
    o = zero[:, 0]
    about_x, about_y = turned(x, o, o), turned(o, y, o)
    right = matrix(about_y @ about_x, t_x, t_y, o)
    mistakes = [
        (matrix(about_x @ about_y, t_x, t_y, o), "this turns about y first, then x"),
        (matrix((about_y @ about_x).mT, t_x, t_y, o), "the rotation is transposed: it turns back"),
        (matrix(turned(y, x, o), t_x, t_y, o), "the two angles are swapped: the first is about x"),
        (matrix(about_y @ about_x, t_y, t_x, o), "the two shifts are swapped: the first is along x"),
        (matrix(about_y @ about_x, o, t_x, t_y), "the shifts are along x and y; these are along y and z"),
        (matrix(turned(torch.deg2rad(x), torch.deg2rad(y), o), t_x, t_y, o), "theta is in radians already"),
        (about_y @ about_x, "the translation is missing: the matrix has a fourth column"),
        (matrix(turned(o, x, y), t_x, t_y, o), "the angles are about x and y; these are about y and z"),
    ]
    expect_right(answer(theta), right, "the matrices", mistakes)
    return "What the data do, undone: put it into the transformer of section 15.9."


def _trilinear(a: float, b: float, c: float) -> float:
    value = 0.0
    for layer, n, m in itertools.product(*map(range, VOLUME.shape)):
        weight = max(0, 1 - abs(a - m)) * max(0, 1 - abs(b - n)) * max(0, 1 - abs(c - layer))
        value += weight * VOLUME[layer, n, m].item()
    return value
