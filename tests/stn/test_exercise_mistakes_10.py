"""The typical wrong answers to chapter 10's exercises are rejected, each with the sentence that helps."""

import math

import pytest
import torch
from torch.nn import functional

from verdicts import assert_mistake_is_named


def homogeneous(points):
    return functional.pad(points, (0, 1), value=1.0)


def project_without_dividing(M, points):
    return (homogeneous(points) @ M.T)[:, :2]


def project_transposed(M, points):
    h = homogeneous(points) @ M
    return h[:, :2] / h[:, 2:]


def project_all_by_one_number(M, points):
    return (homogeneous(points) @ M.T)[:, :2] / M[2, 2]


def project_to_three(M, points):
    h = homogeneous(points) @ M.T
    return h / h[:, 2:]


def project_backward(M, points):
    h = homogeneous(points) @ torch.linalg.inv(M).T
    return h[:, :2] / h[:, 2:]


def signed_areas(point, triangle):
    first, second, third = triangle

    def area(a, b, c):
        return ((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]) / 2

    return torch.stack([area(point, second, third), area(first, point, third), area(first, second, point)])


def areas_not_divided(point, triangle):
    return signed_areas(point, triangle)


def areas_without_sign(point, triangle):
    areas = signed_areas(point, triangle).abs()
    return areas / areas.sum()


def weights_by_the_next_vertex(point, triangle):
    areas = signed_areas(point, triangle)
    return (areas / areas.sum()).roll(1)


def weights_of_two(point, triangle):
    areas = signed_areas(point, triangle)
    return (areas / areas.sum())[:2]


def turned(angle, across, down):
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return torch.tensor([[cosine, -sine * across, 0.0], [sine * down, cosine, 0.0]])


def turn_normalised(angle, height, width):
    return turned(angle, 1, 1)


def turn_factors_exchanged(angle, height, width):
    return turned(angle, width / height, height / width)


def turn_the_other_way(angle, height, width):
    return turned(-angle, height / width, width / height)


def turn_one_row(angle, height, width):
    return turned(angle, height / width, 1)


def roughness_of_size(field):
    return field.square().mean()


def roughness_across(field):
    return field.diff(dim=3).square().mean()


def roughness_as_sum(field):
    return field.diff(dim=3).square().sum() + field.diff(dim=2).square().sum()


def roughness_around_the_edge(field):
    return sum((field - field.roll(1, dim)).square().mean() for dim in (2, 3))


def roughness_detached(field):
    field = field.detach()
    return field.diff(dim=3).square().mean() + field.diff(dim=2).square().mean()


def planes(y, x):
    down, across = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([across**2, across * down, down**2])


def quadratic_aligned(size):
    return planes(*(torch.linspace(-1, 1, count) for count in size))


def quadratic_in_pixels(size):
    return planes(*(torch.arange(float(count)) for count in size))


def centres(size):
    return ((2 * torch.arange(count) + 1) / count - 1 for count in size)


def quadratic_swapped(size):
    return planes(*centres(size)).flip(0)


def quadratic_last(size):
    return planes(*centres(size)).movedim(0, -1)


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("10-1", [9, 60, 24, 1568], "eight numbers, not nine"),
        ("10-1", [8, 30, 12, 784], "in x and in y"),
        ("10-1", [8, 240, 24, 1568], "triangles share vertices"),
        ("10-2", [1, -1, 2.2], "largest"),
        ("10-2", [1, 1, 0.6], "falls as x shrinks"),
        ("10-2", [-1, 1, 0.2], "below zero"),
        ("10-2", [-1, 1, -1.2], "is missing"),
        ("10-3", project_without_dividing, "the divide is missing"),
        ("10-3", project_transposed, "transposed"),
        ("10-3", project_all_by_one_number, "a denominator of its own"),
        ("10-3", project_to_three, "return x and y"),
        ("10-3", project_backward, "from target to source"),
        ("10-4", areas_not_divided, "divide by that of the whole"),
        ("10-4", areas_without_sign, "need their sign"),
        ("10-4", weights_by_the_next_vertex, "the order"),
        ("10-4", weights_of_two, "1 minus the other two"),
        ("10-5", turn_normalised, "in pixels it is distorted"),
        ("10-5", turn_factors_exchanged, "are exchanged"),
        ("10-5", turn_the_other_way, "the sign of the angle"),
        ("10-5", turn_one_row, "the second row needs a factor"),
        ("10-6", roughness_of_size, "differences of neighbours are meant"),
        ("10-6", roughness_across, "neighbours down are missing"),
        ("10-6", roughness_as_sum, "these are sums"),
        ("10-6", roughness_around_the_edge, "roll joins them"),
        ("10-6", roughness_detached, "no gradient flows back"),
        ("10-7", quadratic_aligned, "align_corners=True"),
        ("10-7", quadratic_in_pixels, "these are pixels"),
        ("10-7", quadratic_swapped, "x goes across"),
        ("10-7", quadratic_last, "the planes come first"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)
