"""The typical wrong answers to chapter 11's exercises are rejected, each with the sentence that helps."""

import pytest
import torch

from stn.exercises import check
from stn.spline_system import with_ones
from stn.thin_plate_spline import fit_map
from stn_kernels.reference import radial
from verdicts import assert_mistake_is_named


def phi_without_care(offsets):
    r = offsets.norm(dim=-1)
    return r.square() * r.log()


def phi_chosen_afterwards(offsets):
    squared = offsets.square().sum(-1)
    return torch.where(squared > 0, 0.5 * squared * squared.log(), 0.0)


def phi_by_xlogy(offsets):
    squared = offsets.square().sum(-1)
    return torch.xlogy(squared, squared) / 2


def phi_with_a_safe_square_and_a_root(offsets):
    r = offsets.square().sum(-1).sqrt()
    return torch.where(r > 0, r.square() * torch.where(r > 0, r, 1.0).log(), 0.0)


def phi_with_a_millionth(offsets):
    r = offsets.norm(dim=-1)
    return r.square() * (r + 1e-6).log()


def phi_doubled(offsets):
    return 2 * radial(offsets.square().sum(-1))


def phi_detached(offsets):
    return radial(offsets.square().sum(-1)).detach()


def springs_with(added):
    """The system with `added(smoothing)` on K."""

    def springs(points, heights, smoothing):
        bend = radial((points[:, None] - points).square().sum(-1)) + added(smoothing)
        plane = with_ones(points)
        corner = torch.zeros(3, 3).to(points)
        system = torch.cat([torch.cat([bend, plane], 1), torch.cat([plane.mT, corner], 1)])
        solution = torch.linalg.solve(system, torch.nn.functional.pad(heights, (0, 3)))
        return solution[:-3], solution[-3:]

    return springs


def springs_level_first(points, heights, smoothing):
    w, a = springs_with(torch.diag)(points, heights, smoothing)
    return w, a[[2, 0, 1]]


def springs_in_one(points, heights, smoothing):
    return torch.cat(springs_with(torch.diag)(points, heights, smoothing))


def springs_as_columns(points, heights, smoothing):
    return tuple(part[:, None] for part in springs_with(torch.diag)(points, heights, smoothing))


def areas(grid, order=(0, 1)):
    x, y = order
    one, other = grid[1:, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, 1:]
    return (one[..., x] * other[..., y] - one[..., y] * other[..., x]) / 2


def turned_with_x_and_y_exchanged(grid):
    return int((areas(grid, (1, 0)) < 0).sum())


def turned_as_a_share(grid):
    return (areas(grid) < 0).double().mean()


def turned_without_a_sign(grid):
    return int((areas(grid).abs() < 0).sum())


def turned_by_triangles(grid):
    right, down = grid[:-1, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, :-1]
    return int((right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] < 0).sum())


def back_by_exchange(warp, places):
    return fit_map(target_points=warp(warp.points), source_points=warp.points)(places)


def back_in_steps(count, sign=1):
    def way_back(warp, places):
        found = places
        for _ in range(count):
            found = found + sign * (places - warp(found))
        return found

    return way_back


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("11-1", [25, 56, 50], "three more are the side conditions"),
        ("11-1", [56, 56, 50], "the same system"),
        ("11-1", [28, 28, 50], "two plates"),
        ("11-1", [28, 56, 56], "the weights are not free"),
        ("11-1", [28, 56, 53], "so for both there are six"),
        ("11-1", [28, 56, 25], "two coordinates"),
        ("11-2", ["mirror", "zoom", "triangle", "corner"], "leaves the fourth in place"),
        ("11-2", ["mirror", "zoom", "triangle", "perspective"], "parallel lines meet"),
        ("11-2", ["mirror", "zoom"], "three points have six coordinates"),
        ("11-2", ["zoom", "triangle"], "negative determinant"),
        ("11-2", ["mirror", "triangle"], "slopes cost nothing"),
        ("11-2", ["turn"], "there is no 'turn'"),
        ("11-2", "mirror", "should be a list"),
        ("11-3", [0.5, -0.5, 0.5, -0.5], "Σ w x is not 0"),
        ("11-3", [0.5, 0.5, -0.5, -0.5], "Σ w y is not 0"),
        ("11-3", [0.5, 0.5, 0.5, 0.5], "flies off"),
        ("11-3", [0.5, -1 / 6, -1 / 6, -1 / 6], "they turn the plate"),
        ("11-4", [0.05, 1000], "twice as much"),
        ("11-4", [0.1, 1000], "the kernel's constant matters"),
        ("11-4", [0.2, 10], "100 squared"),
        ("11-4", [0.2, 1e-5], "λ has to be larger"),
        ("11-5", phi_without_care, "NaN at 0"),
        ("11-5", phi_chosen_afterwards, "its gradient at 0 is NaN"),
        ("11-5", phi_by_xlogy, "its gradient at 0 is NaN"),
        ("11-5", phi_with_a_safe_square_and_a_root, "its gradient at 0 is NaN"),
        ("11-5", phi_with_a_millionth, "changes the value"),
        ("11-5", phi_doubled, "twice as much"),
        ("11-5", phi_detached, "no gradient flows back"),
        ("11-6", springs_with(lambda s: 0 * s), "it is missing"),
        ("11-6", springs_with(lambda s: s[:, None]), "added to whole rows"),
        ("11-6", springs_with(lambda s: s), "added to whole columns"),
        ("11-6", springs_with(lambda s: s.mean() * torch.eye(7).to(s)), "one λ for all"),
        ("11-6", springs_with(lambda s: (1 / s).diag()), "is the stiffness"),
        ("11-6", springs_with(lambda s: -s.diag()), "the sign"),
        ("11-6", springs_level_first, "a_0 comes last"),
        ("11-6", springs_in_one, "should return w and a"),
        ("11-6", springs_as_columns, "should have shapes"),
        ("11-7", turned_with_x_and_y_exchanged, "of positive area"),
        ("11-7", turned_as_a_share, "their share"),
        ("11-7", turned_without_a_sign, "its sign taken away"),
        ("11-7", turned_by_triangles, "not the whole cell"),
        ("11-8", lambda warp, places: warp(places), "leads on, not back"),
        ("11-8", back_by_exchange, "no inverse between the points"),
        ("11-8", back_in_steps(1), "the first step"),
        ("11-8", back_in_steps(2), "two steps"),
        ("11-8", back_in_steps(4), "are off"),
        ("11-8", back_in_steps(60, sign=-1), "runs away"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_verdict_does_not_depend_on_the_default_dtype(dtype, capsys):
    """The chapter computes in float64; a reader may not."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        check("11-6", springs_with(torch.diag))
        check("11-8", back_in_steps(60))
        check("11-5", lambda offsets: radial(offsets.square().sum(-1)))
    finally:
        torch.set_default_dtype(before)
    assert capsys.readouterr().out.count(": correct.") == 3
