"""Checks of chapter 10's exercises: beyond affine."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect
from stn.transforms import Projective


@exercise("10-1")
def costs(answer: Any) -> str:
    mistakes = [
        ([9, 60, 24, 1568], "a multiple of a projective matrix is the same map: eight numbers, not nine"),
        ([4, 60, 24, 1568], "each of the four corners has an x and a y"),
        ([8, 30, 12, 784], "each vertex, lattice point or pixel moves in x and in y"),
        ([4, 30, 12, 784], "each corner, vertex, lattice point or pixel moves in x and in y"),
        (
            [8, 120, 24, 1568],
            "six for each of the twenty cells: but cells share vertices, and those are theta",
        ),
        ([8, 240, 24, 1568], "six for each of the forty triangles: but triangles share vertices"),
        ([8, 60, 12, 1568], "the coefficients of x and of y are two rows of M: 2 D numbers"),
    ]
    expect_right(answer, [8, 60, 24, 1568], "the list of costs", mistakes)
    return "From eight to 1568, and the smallest that can say what happened is the best."


@exercise("10-2")
def smallest(answer: Any) -> str:
    mistakes = [
        ([1, -1, 2.2], "there it is largest"),
        ([1, -1, -0.2], "the value is right, but at this corner h_3 is largest"),
        ([-1, -1, 1.4], "m_32 is negative, so h_3 falls as y grows"),
        ([1, 1, 0.6], "m_31 is positive, so h_3 falls as x shrinks"),
        ([-1, 1, -1.2], "the last entry of the row, 1, is missing"),
        ([-1, 1, 0.2], "1 - 0.4 - 0.8 is below zero"),
        ([0, 1, 0.2], "h_3 also falls towards the left: look in a corner"),
        ([0, 0, 1], "that is the middle; a linear function is smallest in a corner"),
    ]
    expect_right(answer, [-1, 1, -0.2], "the place and the value", mistakes)
    return "Below 0, since 0.4 + 0.8 is more than 1: the horizon cuts this corner off."


@exercise("10-3")
def project(answer: Callable[..., Any]) -> str:
    points = torch.tensor([[0.5, -0.5], [-1.0, 0.25], [0.75, 1.0], [0.0, 0.0]])
    matrices = torch.tensor(
        [
            [[2.0, 0.4, 0.2], [-0.2, 1.8, -0.6], [0.6, -0.2, 2.0]],
            [[1.0, 0.2, 0.1], [-0.1, 0.9, -0.3], [0.3, 0.1, 1.0]],
        ]
    )
    homogeneous = functional.pad(points, (0, 1), value=1.0)
    for M in matrices:
        h = homogeneous @ M.mT
        right = h[:, :2] / h[:, 2:]
        backward = homogeneous @ M
        inverse = homogeneous @ torch.linalg.inv(M).mT
        mistakes = [
            (h[:, :2], "the divide is missing: the source is (h_1 / h_3, h_2 / h_3)"),
            (h / h[:, 2:], "the third coordinate has done its work; return x and y, (K, 2)"),
            (h, "these are homogeneous coordinates; divide, and return x and y"),
            (backward[:, :2] / backward[:, 2:], "the matrix is transposed: rows of points need M.T"),
            (inverse[:, :2] / inverse[:, 2:], "this goes from source to target; M is from target to source"),
            (h[:, :2] / M[2, 2], "each point has a denominator of its own, h_3"),
        ]
        expect_right(answer(M, points), right, "the sources", mistakes)
    return f"It is {Projective(None)!r}.map_points, for one matrix."


@exercise("10-4")
def barycentric_of(answer: Callable[..., Any]) -> str:
    triangle = torch.tensor([[-1.0, -0.5], [0.8, -0.9], [0.3, 1.0]])
    corners = torch.cat([triangle.mT, torch.ones(1, 3)])
    for point in (triangle[1], torch.tensor([0.1, -0.2]), torch.tensor([0.9, 0.6])):
        right = torch.linalg.solve(corners, torch.cat([point, torch.ones(1)]))
        areas = right.abs()
        mistakes = [
            (2 * _area(triangle) * right, "these are areas; divide by that of the whole triangle"),
            (_area(triangle) * right, "these are areas; divide by that of the whole triangle"),
            (areas, "outside the triangle a coordinate is negative; areas need their sign"),
            (areas / areas.sum(), "outside the triangle a coordinate is negative; areas need their sign"),
            (right.clamp(min=0), "the point lies outside, where coordinates are negative: do not clamp"),
            (right.roll(1), "the order: the first belongs to the first vertex, the one opposite its area"),
            (right.roll(-1), "the order: the first belongs to the first vertex, the one opposite its area"),
            (right[:2], "three numbers; the third is 1 minus the other two"),
            (right[1:], "three numbers; the first is 1 minus the other two"),
        ]
        given = answer(point, triangle)
        if isinstance(given, Tensor) and given.shape == (3, 1):
            raise Wrong("give the three numbers the shape (3,)")
        expect_right(
            given, right, f"the coordinates of {tuple(round(v, 2) for v in point.tolist())}", mistakes
        )
    return "At a vertex 1, 0, 0; outside at least one is negative."


@exercise("10-5")
def turn_in_pixels(answer: Callable[..., Any]) -> str:
    for angle, height, width in ((90.0, 28, 28), (30.0, 28, 56), (-50.0, 40, 30)):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))

        def theta(upper: float, lower: float, cosine: float = cosine) -> Tensor:
            return torch.tensor([[cosine, upper, 0.0], [lower, cosine, 0.0]])

        across, down = -sine * height / width, sine * width / height
        mistakes = [
            (theta(-sine, sine), "this is a turn in normalised coordinates; in pixels it is distorted"),
            (theta(-sine * width / height, sine * height / width), "the two factors are exchanged"),
            (theta(-across, -down), "the sign of the angle: the sine of the first row has the minus"),
            (theta(across, sine), "the second row needs a factor, too"),
            (theta(-sine, down), "the first row needs a factor, too"),
            (theta(across, down)[:, :2], "theta has a third column, the translation: it is 0"),
        ]
        expect_right(
            answer(angle, height, width),
            theta(across, down),
            f"turn_in_pixels{angle, height, width}",
            mistakes,
        )
    return "It is D^-1 R D, with D from normalised coordinates to pixels; the determinant is still 1."


@exercise("10-6")
def roughness(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(6)
    field = torch.randn(2, 2, 5, 7, generator=generator)
    across, down = field.diff(dim=3), field.diff(dim=2)
    right = across.square().mean() + down.square().mean()
    closed = (field - field.roll(1, 3)).square().mean() + (field - field.roll(1, 2)).square().mean()
    second = across.diff(dim=3).square().mean() + down.diff(dim=2).square().mean()
    mistakes = [
        (field.square().mean(), "this punishes large displacements; differences of neighbours are meant"),
        (across.square().mean(), "neighbours down are missing"),
        (down.square().mean(), "neighbours across are missing"),
        (
            across.abs().mean() + down.abs().mean(),
            "these are the differences' sizes; their squares are meant",
        ),
        (across.square().sum() + down.square().sum(), "these are sums; take the mean of each"),
        (right / 2, "the two means are added, not averaged"),
        (closed, "the last column is no neighbour of the first: roll joins them"),
        (second, "these are differences of differences, which let a slope pass"),
        (across.mean() + down.mean(), "square first: differences of both signs cancel"),
    ]
    probe = field.clone().requires_grad_()
    penalty = answer(probe)
    expect_right(penalty, right, "the penalty", mistakes, tolerance=1e-5)
    expect(isinstance(penalty, Tensor) and penalty.requires_grad, "no gradient flows back to the field")
    return "With enough of it, a field can only do what its neighbours do: it becomes a translation."


@exercise("10-7")
def quadratic(answer: Callable[..., Any]) -> str:
    for size in ((4, 4), (3, 5)):
        right = _quadratic(*(_centres(count) for count in size))
        aligned = _quadratic(*(torch.linspace(-1, 1, count) for count in size))
        pixels = _quadratic(*(torch.arange(float(count)) for count in size))
        mistakes = [
            (aligned, "these are the coordinates of align_corners=True, with -1 and 1 at the outer centres"),
            (pixels, "these are pixels; normalised coordinates are meant"),
            (right.flip(0), "x goes across: x^2 is the same in every row of its plane"),
            (right[[0, 2, 1]], "the order is x^2, x y, y^2"),
            (right.movedim(0, -1), "the planes come first: (3, H', W')"),
            (right.mT, "the planes are transposed: (3, H', W')"),
            (right.flatten(1), "give the planes their rows and columns: (3, H', W')"),
        ]
        expect_right(answer(size), right, f"the planes at {size}", mistakes)
    return "Six numbers that bend: put them beside the six of Equation 1, and you have all quadratic maps."


def _centres(count: int) -> Tensor:
    return (2 * torch.arange(count) + 1) / count - 1


def _quadratic(y: Tensor, x: Tensor) -> Tensor:
    down, across = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([across**2, across * down, down**2])


def _area(triangle: Tensor) -> Tensor:
    """With its sign."""
    return torch.linalg.det(functional.pad(triangle, (0, 1), value=1.0)) / 2
