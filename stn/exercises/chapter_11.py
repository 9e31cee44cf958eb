"""Checks of chapter 11's exercises: thin plate splines."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect
from stn.spline_system import with_ones
from stn.thin_plate_spline import fit_map, uniform_grid
from stn_kernels.reference import radial

FREE = {"mirror", "zoom", "triangle"}
BENT = {
    "corner": "an affine map that leaves three corners in place leaves the fourth in place, too",
    "perspective": "a perspective view makes parallel lines meet, which no affine map does",
}


@exercise("11-1")
def counts(answer: Any) -> str:
    mistakes = [
        ([25, 56, 50], "25 equations say where the points go; three more are the side conditions"),
        ([56, 56, 50], "both coordinates have the same system, with two right-hand sides"),
        ([28, 28, 50], "w and a are those of two plates, one for x and one for y"),
        ([28, 50, 50], "each plate has three numbers of its own beside its 25 weights"),
        ([28, 56, 56], "the weights are not free: three side conditions hold for each coordinate"),
        ([28, 56, 53], "three side conditions hold for each coordinate, so for both there are six"),
        ([28, 56, 25], "a source point has two coordinates"),
        ([28, 56, 44], "the six numbers of the affine part are free as well"),
    ]
    expect_right(answer, [28, 56, 50], "[equations, numbers, free numbers]", mistakes, tolerance=0.5)
    return "The free ones are the coordinates of the source points: what a network predicts."


@exercise("11-2")
def free_of_charge(answer: Any) -> str:
    expect(
        isinstance(answer, (list, tuple, set)),
        f"free_of_charge should be a list of names; got {type(answer).__name__}",
    )
    given = {str(name) for name in answer}
    for name in sorted(given - FREE - set(BENT)):
        raise Wrong(f"there is no {name!r} in the list")
    for name in sorted(given & set(BENT)):
        raise Wrong(f"{name!r} bends: {BENT[name]}")
    expect("mirror" in given, "a mirror image is an affine map, with a negative determinant")
    expect("zoom" in given, "to enlarge is affine, however far: slopes cost nothing")
    expect("triangle" in given, "three points have six coordinates, and an affine map has six numbers")
    return "All three are affine maps."


@exercise("11-3")
def corner_weights(answer: Any) -> str:
    mistakes = [
        ([0.5, -0.5, 0.5, -0.5], "their sum is 0, but they turn the plate: Σ w x is not 0"),
        ([0.5, 0.5, -0.5, -0.5], "their sum is 0, but they turn the plate: Σ w y is not 0"),
        ([0.5, 0.5, 0.5, 0.5], "all four push upwards, and the plate flies off: Σ w is not 0"),
        ([0.5, -1 / 6, -1 / 6, -1 / 6], "their sum is 0, but they turn the plate: Σ w x is not 0"),
        ([0.5, 0, 0, -0.5], "their sum is 0, but they turn the plate: Σ w x is not 0"),
        ([-0.5, -0.5, 0.5], "give all four, the first too"),
        ([-0.5, 0.5, 0.5, -0.5], "the first is 0.5"),
    ]
    expect_right(answer, [0.5, -0.5, -0.5, 0.5], "the weights", mistakes)
    return "Up at two opposite corners, down at the other two: four nails can bend a plate in one way only."


@exercise("11-4")
def lambdas(answer: Any) -> str:
    mistakes = [
        (
            [0.05, 1000],
            "(a) their weights are half of ours: what is multiplied with them has to be twice as much",
        ),
        ([0.1, 1000], "(a) with springs the kernel's constant matters: λ multiplies the weights"),
        ([0.2, 10], "(b) J is one over a length squared: 100 times as large a unit counts 100 squared"),
        (
            [0.2, 0.1],
            "(b) the same surface, in larger coordinates, has less bending energy: λ has to make up",
        ),
        ([0.2, 0.00001], "(b) in larger coordinates J is smaller, so λ has to be larger"),
        ([0.2, 0.001], "(b) in larger coordinates J is smaller, so λ has to be larger, and by the square"),
        ([0.2, 2000], "(b) is with our kernel"),
        ([0.05, 10], "(a) their weights are half of ours; and (b) J goes with the square of the unit"),
    ]
    expect_right(answer, [0.2, 1000], "[(a), (b)]", mistakes, tolerance=1e-6)
    return "Whoever reports a λ should say with which kernel, and in which unit."


@exercise("11-5")
def safe_phi(answer: Callable[..., Any]) -> str:
    offsets = torch.tensor(
        [[[0.3, -0.4], [0.0, 0.0]], [[1.2, 0.5], [-1e-3, 0.0]]], dtype=torch.float64, requires_grad=True
    )
    squared = offsets.detach().square().sum(-1)
    right = radial(squared)
    value = answer(offsets)
    expect(isinstance(value, Tensor), f"φ should be a tensor; got {type(value).__name__}")
    # NaN is no value that expect_right could compare with.
    expect(not value.isnan().any(), "the value is NaN at 0, where log r is infinite; it should be 0")
    radius = squared.sqrt()
    mistakes = [
        (2 * right, "that is r² log r², twice as much"),
        (squared * (radius + 1e-6).log(), "1e-6 in the logarithm changes the value at every r"),
        (squared * (squared + 1e-6).log() / 2, "1e-6 in the logarithm changes the value at every r"),
        (torch.xlogy(radius, radius), "that is r log r"),
    ]
    expect_right(value, right, "φ", mistakes, tolerance=1e-9)
    expect(value.requires_grad, "no gradient flows back from it to the offsets")
    (gradient,) = torch.autograd.grad(value.sum(), offsets)
    expect(
        not gradient.isnan().any(),
        "the value is right, but its gradient at 0 is NaN: on the way back, infinity meets a 0. Choosing "
        "with torch.where afterwards does not help; make the argument safe before the logarithm and the root",
    )
    slope = torch.where(squared > 0, right / squared.clamp_min(1e-300) * 2 + 1, 0.0)
    expect_right(gradient, slope[..., None] * offsets.detach(), "the gradient", [], tolerance=1e-9)
    return "It is what stn_kernels.reference.radial does, with the squared distance."


@exercise("11-6")
def springs(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(6)
    points = 2 * torch.rand(7, 2, generator=generator, dtype=torch.float64) - 1
    heights = torch.randn(7, generator=generator, dtype=torch.float64)
    strengths = torch.tensor([0.05, 0.1, 0.4, 1.0, 0.02, 0.3, 2.0], dtype=torch.float64)
    for smoothing in (strengths, torch.zeros(7, dtype=torch.float64)):
        given = answer(points, heights, smoothing)
        expect(
            isinstance(given, tuple | list) and len(given) == 2,
            f"springs should return w and a; got {type(given).__name__}",
        )
        w, a = (torch.as_tensor(part).detach().double() for part in given)
        expect(
            w.shape == (7,) and a.shape == (3,),
            f"w and a should have shapes (7,) and (3,) here; got {tuple(w.shape)} and {tuple(a.shape)}",
        )
        right = _springs(points, heights, smoothing.diag())
        mistakes = [
            (right[[0, 1, 2, 3, 4, 5, 6, 9, 7, 8]], "a is (a_x, a_y, a_0); a_0 comes last"),
            *_spring_mistakes(points, heights, smoothing),
        ]
        expect_right(torch.cat([w, a]), right, "(w, a)", mistakes, tolerance=1e-5)
    return "A λ of 0 is a nail, a large one hardly counts."


@exercise("11-7")
def turned_over(answer: Callable[..., Any]) -> str:
    for size, turned in (((5, 7), False), ((9, 6), False), ((8, 8), True)):
        grid = _grid(size, turned)
        right = int((_areas(grid) < 0).sum())
        steps_across, steps_down = grid[:-1, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, :-1]
        triangles = _cross(steps_across, steps_down)
        cells = _areas(grid).numel()
        mistakes = [
            (cells - right, "those are the cells of positive area; exchange the diagonals, or x and y"),
            (right / cells, "that is their share; count them"),
            (0, "no area is negative with its sign taken away"),
            ((triangles < 0).sum(), "that is the triangle at each cell's top left, not the whole cell"),
        ]
        given = answer(grid)
        expect_right(given, right, f"of {cells} cells the number turned over", mistakes, tolerance=1e-6)
    return "It needs no derivative: on the lattice of the pixels it sees what they show."


@exercise("11-8")
def way_back(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(8)
    target = 0.8 * uniform_grid((3, 4), align_corners=True).flatten(0, 1)
    source = target + 0.06 * torch.randn(12, 2, generator=generator, dtype=torch.float64)
    warp = fit_map(target_points=target, source_points=source)
    places = 1.4 * torch.rand(40, 2, generator=generator, dtype=torch.float64) - 0.7
    right = warp.inverse(places)
    one_step = places + (places - warp(places))
    mistakes = [
        (warp(places), "that is the warp itself, which leads on, not back"),
        (fit_map(target_points=source, source_points=target)(places), "that is the spline with its points "
         "exchanged: another one, which is no inverse between the points"),
        (one_step, "that is the first step; from where it leads, look again"),
        (one_step + (places - warp(one_step)), "those are two steps; go on until it has settled"),
    ]  # fmt: skip
    given = answer(warp, places)
    expect(
        not (isinstance(given, Tensor) and (given.isnan().any() or given.abs().max() > 10)),
        "it runs away: if T(p) misses q by q − T(p), that is what to add",
    )
    expect_right(given, right, "the way back", mistakes, tolerance=1e-6)
    return "It settles wherever the Jacobian differs from the identity by less than 1."


def _springs(points: Tensor, heights: Tensor, added: Tensor) -> Tensor:
    """w and a, (K + 3,), of the system with `added` on K."""
    bend = radial((points[:, None] - points).square().sum(-1)) + added
    plane = with_ones(points)
    system = torch.cat([torch.cat([bend, plane], 1), torch.cat([plane.mT, torch.zeros(3, 3).to(points)], 1)])
    return torch.linalg.solve(system, torch.nn.functional.pad(heights, (0, 3)))


def _spring_mistakes(points: Tensor, heights: Tensor, smoothing: Tensor) -> Iterator[tuple[Tensor, str]]:
    if not smoothing.any():
        return
    one = torch.eye(7).to(points)
    for added, sentence in (
        (0 * one, "λ does nothing: it is missing, or added to whole rows of K, where Σ w = 0 cancels it"),
        (smoothing.expand(7, 7), "λ is added to whole columns of K; it belongs on the diagonal"),
        (smoothing.mean() * one, "that is one λ for all, their mean; each nail has its own"),
        ((1 / smoothing).diag(), "1 / λ is the stiffness; what is added to K is λ"),
        (-smoothing.diag(), "the sign: f(p_k) = z_k - λ_k w_k"),
        (smoothing.sqrt().diag(), "that is the root of λ"),
    ):
        yield _springs(points, heights, added), sentence


def _grid(size: tuple[int, int], turned: bool) -> Tensor:
    """A folded grid; mirrored if turned."""
    points = 0.7 * uniform_grid((3, 3), align_corners=True).flatten(0, 1)
    moved = points.clone()
    moved[4] += torch.tensor([0.9, 0.25])
    if turned:
        moved[:, 0] = -moved[:, 0]
    return fit_map(target_points=points, source_points=moved).grid(size)


def _areas(grid: Tensor) -> Tensor:
    return _cross(grid[1:, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, 1:]) / 2


def _cross(one: Tensor, other: Tensor) -> Tensor:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
