"""Checks of chapter 12's exercises: the thin plate spline as a layer."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise, expect
from stn.spline_system import with_ones
from stn.thin_plate_spline import fit_map, uniform_grid
from stn_kernels.reference import radial

AFFINE = torch.tensor([[0.9, -0.5, 0.1], [0.2, 0.6, -0.3]])
DIAGONAL = 0.9 * math.sqrt(2)  # from the centre to a corner point


@exercise("12-1")
def counts(answer: Any) -> str:
    mistakes = [
        ([20, 64_000, 4_096_000], "a source point has two coordinates"),
        ([20, 32_000, 2_048_000], "there are two rows of 10 points"),
        ([46, 64_000, 4_096_000], "w and a follow from the source points; the head returns these alone"),
        ([46, 73_600, 4_096_000], "w and a follow from the source points; the head returns these alone"),
        ([40, 73_600, 4_096_000], "features have K + 3 columns; of the inverse only K columns meet C'"),
        ([40, 128_000, 4_096_000], "the same entry of B serves x and y"),
        ([40, 4_096_000, 4_096_000], "B is the same for all images of a batch"),
        ([40, 64_000, 64_000], "B would take so many, once; the fused kernel takes them for each image"),
        ([40, 64_000, 8_192_000], "the same logarithm serves x and y"),
        ([40, 64_000, 204_800], "each pixel takes one for each of its 20 points"),
        ([40, 64_000, 4_710_400], "only the K distances need one; x, y and 1 do not"),
    ]
    right = [40, 64_000, 4_096_000]
    expect_right(answer, right, "[numbers, entries, logarithms]", mistakes, tolerance=0.5)
    return "64,000 logarithms once, or 4,096,000 for each batch: that is what the memory of B buys."


@exercise("12-2")
def degrees(answer: Any) -> str:
    mistakes = [
        (45, "at 45° the corners are 1.27 from the centre, on the axes"),
        (math.degrees(math.asin(1 / DIAGONAL)), "that is the corner's direction then; it began at 45°"),
        (math.degrees(math.acos(1 / DIAGONAL)), "that is the corner's direction then; it began at 45°"),
        (math.degrees(math.acos(0.9)), "0.9 is a corner's coordinate; its distance from the centre is 1.27"),
        (math.degrees(math.atan(0.1 / 0.9)), "it moves on a circle, not straight up to the bound"),
        (math.degrees(0.1 / DIAGONAL), "it moves on a circle, and not straight towards the bound"),
        (math.degrees(0.1 / 0.9), "it moves on a circle, and not straight towards the bound"),
        (0, "its coordinates are 0.9: there is room up to 1"),
        (math.asin(1 / DIAGONAL) - math.pi / 4, "that is in radians"),
    ]
    right = math.degrees(math.asin(1 / DIAGONAL)) - 45
    expect_right(answer, right, "the angle in degrees", mistakes, tolerance=0.06)
    return "Hardly at all: beyond it the points are pulled inwards, and the output is enlarged."


@exercise("12-3")
def slopes(answer: Any) -> str:
    right = [b * (1 - (0.9 / b) ** 2) for b in (1.2, 2)]
    at_theta = [b * (1 - math.tanh(0.9) ** 2) for b in (1.2, 2)]
    mistakes = [
        ([value / b for value, b in zip(right, (1.2, 2), strict=True)], "the b in front of tanh counts, too"),
        ([0.19, 0.19], "0.19 is the slope at 0.9 of the bound; here 0.9 is the point's coordinate"),
        ([1.2 * 0.19, 2 * 0.19], "tanh θ is not 0.9 but 0.9 / b"),
        (at_theta, "0.9 is the point, not θ: tanh θ is 0.9 / b"),
        ([b * (1 - 0.9 / b) for b in (1.2, 2)], "the slope of tanh is 1 - tanh², with a square"),
        ([1 / value for value in right], "that is how θ changes with the point"),
        (right[::-1], "(a) is with b = 1.2"),
    ]
    expect_right(answer, right, "[(a), (b)]", mistakes, tolerance=5e-3)
    return "A wide bound moves points faster than offsets would: mind the learning rate."


@exercise("12-4")
def back_to_theta(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(4)
    count, size, bound = 6, (4, 5), 1.3
    delta = torch.randn(3, *size, 2, generator=generator, dtype=torch.float64)
    basis = torch.randn(20, count, generator=generator, dtype=torch.float64)
    theta = torch.randn(3, 2 * count, generator=generator, dtype=torch.float64)
    of_points = basis.mT @ delta.flatten(1, 2)
    slope = 1 - theta.tanh() ** 2
    mistakes = [
        (of_points, "that is the gradient of the source points; θ comes before the tanh"),
        (of_points.flatten(1), "that is the gradient of the source points; θ comes before the tanh"),
        (of_points.flatten(1) * slope, "the bound in front of tanh is a factor of the slope, too"),
        (of_points.flatten(1) * bound * theta.tanh(), "that is times tanh; its slope is 1 - tanh²"),
        (of_points.flatten(1) * bound * (1 - theta**2), "the slope of tanh at θ is 1 - tanh² θ"),
        ((of_points * (bound * slope).unflatten(1, (-1, 2))), "θ is flat: (N, 2 K), point by point"),
        (of_points.mT.flatten(1) * bound * slope, "the order is x_1, y_1, x_2: point by point"),
        ((of_points.flatten(1) * bound * slope).sum(0), "each image has its own θ; do not sum over them"),
        (of_points.flatten(1) * bound * slope / 20, "it is the sum over the pixels, not their mean"),
    ]
    given = answer(delta, basis, theta, bound)
    expect_right(given, of_points.flatten(1) * bound * slope, "the gradient of θ", mistakes, tolerance=1e-6)
    return "These two factors are the whole backward pass of the layer, from the grid on."


@exercise("12-5")
def start_at(answer: Callable[..., Any]) -> str:
    points = (0.9 * uniform_grid((2, 4), align_corners=True).flatten(0, 1)).to(AFFINE.dtype)
    source = points @ AFFINE[:, :2].mT + AFFINE[:, 2]
    mistakes = [
        (
            source.flatten(),
            'those are the source points, θ of "absolute"; offsets are from the target points',
        ),
        (source - points, "θ is flat: (2 K,), point by point"),
        ((points - source).flatten(), "the sign: c' = c + θ"),
        ((source - points).mT.flatten(), "the order is x_1, y_1, x_2: point by point"),
        ((source - points - AFFINE[:, 2]).flatten(), "the last column of A moves all points"),
        (
            (points @ AFFINE[:, :2] + AFFINE[:, 2] - points).flatten(),
            "A's rows give x and y: with points in rows, its transpose is what they are multiplied by",
        ),
    ]
    given = answer(AFFINE.clone(), points)
    expect_right(given, (source - points).flatten(), "θ", mistakes, tolerance=1e-5)
    return "The spline is then exactly that affine map: it prefers it to every other."


@exercise("12-6")
def off_by(answer: Callable[..., Any]) -> str:
    columns, widths = (0, 10, 49, 99, 3), (100, 100, 100, 100, 7)
    given = [float(answer(column, width)) for column, width in zip(columns, widths, strict=True)]

    def each(function: Callable[[int, int], float]) -> list[float]:
        return [function(column, width) for column, width in zip(columns, widths, strict=True)]

    right = each(lambda j, w: ((w - 1) / 2 - j) / w)
    mistakes = [
        ([-value for value in right], "the sign: the first column samples right of where it should"),
        (each(lambda j, w: (2 * j + 1) * (w - 1) / (2 * w)), "that is where it samples; subtract the column"),
        (
            each(lambda j, w: (2 * j / (w - 1) * w - 1) / 2 - j),
            "that is the other way round: made with align_corners=True, sampled with False",
        ),
        (each(lambda j, w: 2 / w * ((w - 1) / 2 - j) / w), "in pixels, not in normalised coordinates"),
        ([abs(value) for value in right], "left of the middle it is right, right of the middle left: a sign"),
        (each(lambda j, w: 0.0), "that is so if both agree"),
    ]
    expect_right(given, right, "the shift", mistakes, tolerance=1e-6)
    return "Nearly half a pixel at either border, inwards, and none in the middle."


@exercise("12-7")
def bending_energy(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(7)
    points = 0.8 * uniform_grid((3, 3), align_corners=True).flatten(0, 1)
    source = points + 0.1 * torch.randn(4, 9, 2, generator=generator, dtype=torch.float64)
    by_axis = fit_map(target_points=points.expand(4, -1, -1), source_points=source).bending_energy()
    right = by_axis.sum(1)
    bend = radial((points[:, None] - points).square().sum(-1))
    plane = with_ones(points)
    corner = torch.zeros(3, 3, dtype=torch.float64)
    system = torch.cat([torch.cat([bend, plane], 1), torch.cat([plane.mT, corner], 1)])

    def form(matrix: Tensor) -> Tensor:
        return 8 * math.pi * (source * (matrix @ source)).sum((1, 2))

    mistakes = [
        (right / (8 * math.pi), "8 π is missing"),
        (by_axis, "x and y together: their sum"),
        (right.sum(), "one for each image, (N,)"),
        (right.mean(), "one for each image, (N,)"),
        (form(bend), "K takes weights, not source points: first the inverse takes C' to w"),
        (
            form(torch.linalg.inv(bend)),
            "that is the inverse of K alone; without its side conditions the plane counts",
        ),
        (-right, "the sign: it is never negative"),
        (by_axis[:, 0], "x and y together: that is x"),
        (
            form(torch.linalg.inv(system)[:9, :9] @ torch.linalg.inv(system)[:9, :9]),
            "that is w^T w, without K",
        ),
    ]
    expect_right(answer(source, points), right, "the energy", mistakes, tolerance=1e-6)
    flat = points @ AFFINE[:, :2].double().mT
    left = torch.as_tensor(answer(flat[None], points)).abs().max().item()
    expect(left < 1e-6, f"an affine map costs nothing; yours costs {left:.3g}")
    return "One product with a constant matrix: cheap enough for every step of training."
