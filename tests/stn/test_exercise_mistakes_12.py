"""The typical wrong answers to chapter 12's exercises are rejected, each with the sentence that helps."""

import math

import pytest
import torch

from stn.exercises import check
from stn.spline_system import with_ones
from stn.thin_plate_spline import fit_map
from stn_kernels.reference import radial
from verdicts import assert_mistake_is_named


def back(delta, B, theta, bound):
    return (B.T @ delta.flatten(1, 2)).flatten(1) * bound * (1 - theta.tanh() ** 2)


def back_to_points(delta, B, theta, bound):
    return B.T @ delta.flatten(1, 2)


def back_without_the_bound(delta, B, theta, bound):
    return back(delta, B, theta, 1)


def back_with_tanh(delta, B, theta, bound):
    return (B.T @ delta.flatten(1, 2)).flatten(1) * bound * theta.tanh()


def back_by_columns(delta, B, theta, bound):
    return (B.T @ delta.flatten(1, 2)).mT.flatten(1) * bound * (1 - theta.tanh() ** 2)


def back_for_the_batch(delta, B, theta, bound):
    return back(delta, B, theta, bound).sum(0)


def start(A, points):
    return (points @ A[:, :2].T + A[:, 2] - points).flatten()


def start_transposed(A, points):
    return (points @ A[:, :2] + A[:, 2] - points).flatten()


def off(column, width):
    return ((width - 1) / 2 - column) / width


def off_the_other_way(column, width):
    return ((2 * column / (width - 1) - 1 + 1) * width - 1) / 2 - column


def inverse_block(points, side_conditions=True):
    bend = radial((points[:, None] - points).square().sum(-1))
    if not side_conditions:
        return torch.linalg.inv(bend)
    plane = with_ones(points)
    corner = torch.zeros(3, 3).to(points)
    system = torch.cat([torch.cat([bend, plane], 1), torch.cat([plane.mT, corner], 1)])
    return torch.linalg.inv(system)[: len(points), : len(points)]


def energy(source, points, side_conditions=True):
    return 8 * math.pi * (source * (inverse_block(points, side_conditions) @ source)).sum((1, 2))


def energy_by_axis(source, points):
    return fit_map(target_points=points.expand_as(source), source_points=source).bending_energy()


def energy_of_k(source, points):
    bend = radial((points[:, None] - points).square().sum(-1))
    return 8 * math.pi * (source * (bend @ source)).sum((1, 2))


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("12-1", [20, 64_000, 4_096_000], "two coordinates"),
        ("12-1", [20, 32_000, 2_048_000], "two rows"),
        ("12-1", [46, 64_000, 4_096_000], "the head returns these alone"),
        ("12-1", [40, 73_600, 4_096_000], "only K columns"),
        ("12-1", [40, 128_000, 4_096_000], "serves x and y"),
        ("12-1", [40, 4_096_000, 4_096_000], "the same for all images"),
        ("12-1", [40, 64_000, 64_000], "for each image"),
        ("12-1", [40, 64_000, 8_192_000], "the same logarithm"),
        ("12-1", [40, 64_000, 204_800], "each of its 20 points"),
        ("12-2", 45, "1.27 from the centre"),
        ("12-2", 51.8, "began at 45°"),
        ("12-2", 38.2, "began at 45°"),
        ("12-2", 25.8, "its distance from the centre"),
        ("12-2", 6.34, "on a circle"),
        ("12-2", 0.118, "in radians"),
        ("12-3", [0.4375, 0.7975], "the b in front"),
        ("12-3", [0.19, 0.19], "0.9 of the bound"),
        ("12-3", [0.228, 0.38], "0.9 / b"),
        ("12-3", [0.3, 1.1], "with a square"),
        ("12-3", [1.595, 0.525], "(a) is with"),
        ("12-4", back_to_points, "before the tanh"),
        ("12-4", back_without_the_bound, "the bound in front"),
        ("12-4", back_with_tanh, "1 - tanh²"),
        ("12-4", back_by_columns, "point by point"),
        ("12-4", back_for_the_batch, "its own θ"),
        ("12-5", lambda A, points: points @ A[:, :2].T + A[:, 2], "should have shape"),
        ("12-5", lambda A, points: (points @ A[:, :2].T + A[:, 2]).flatten(), 'θ of "absolute"'),
        ("12-5", lambda A, points: -start(A, points), "the sign"),
        ("12-5", lambda A, points: start(A, points).view(-1, 2).T.flatten(), "point by point"),
        ("12-5", lambda A, points: start(A, points).view(-1, 2), "flat"),
        ("12-5", start_transposed, "its transpose"),
        ("12-6", lambda column, width: -off(column, width), "the sign"),
        ("12-6", lambda column, width: off(column, width) + column, "subtract the column"),
        ("12-6", off_the_other_way, "the other way round"),
        ("12-6", lambda column, width: abs(off(column, width)), "a sign"),
        ("12-6", lambda column, width: off(column, width) * 2 / width, "not in normalised coordinates"),
        ("12-6", lambda column, width: 0, "both agree"),
        ("12-7", lambda source, points: energy(source, points) / (8 * math.pi), "8 π is missing"),
        ("12-7", energy_by_axis, "their sum"),
        ("12-7", lambda source, points: energy(source, points).mean(), "one for each image"),
        ("12-7", energy_of_k, "K takes weights"),
        ("12-7", lambda source, points: energy(source, points, side_conditions=False), "side conditions"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("12-1", [40, 64_000, 4_096_000]),
        ("12-2", 6.8),
        ("12-3", [0.525, 1.595]),
        ("12-4", back),
        ("12-5", start),
        ("12-6", off),
        ("12-7", energy),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_right_answer_is_right_in_either_default_dtype(exercise, answer, dtype, capsys):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        check(exercise, answer)
    finally:
        torch.set_default_dtype(before)
    assert capsys.readouterr().out.startswith(f"Exercise {exercise}: correct.")
