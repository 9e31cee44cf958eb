"""Chapter 15: right answers pass, and whoever makes a typical mistake is told which one."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from stn.data import rotation_about_axes
from stn.exercises import check
from verdicts import assert_mistake_is_named


def theta(row, amount):
    matrix = torch.eye(3, 4)
    matrix[row, 3] = amount
    return matrix


def weights(a, b, c):
    return [z * y * x for z, y, x in itertools.product((1 - c, c), (1 - b, b), (1 - a, a))]


def trilinear(volume, a, b, c):
    value = 0.0
    corners = itertools.product(*[(math.floor(p), math.floor(p) + 1) for p in (c, b, a)])
    for layer, n, m in corners:
        if 0 <= layer < volume.shape[0] and 0 <= n < volume.shape[1] and 0 <= m < volume.shape[2]:
            weight = (1 - abs(a - m)) * (1 - abs(b - n)) * (1 - abs(c - layer))
            value += weight * float(volume[layer, n, m])
    return value


def trilinear_swapped(volume, a, b, c):
    return trilinear(volume, c, b, a)


def trilinear_clamped(volume, a, b, c):
    places = (min(max(p, 0), extent - 1) for p, extent in zip((a, b, c), reversed(volume.shape), strict=True))
    return trilinear(volume, *places)


def one_layer(volume, a, b, c):
    return trilinear(volume, a, b, min(max(math.floor(c + 0.5), 0), volume.shape[0] - 1))


def spread(image, depth):
    return image[:, :, None].expand(-1, -1, depth, -1, -1)


def spread_as_mean(image, depth):
    return spread(image, depth) / depth


def spread_to_the_first(image, depth):
    return F.pad(image[:, :, None], (0, 0, 0, 0, 0, depth - 1))


def spread_not_at_all(image, depth):
    return image


def spread_last(image, depth):
    return image[..., None].expand(-1, -1, -1, -1, depth)


def tilt(parameters):
    angles, shift = F.pad(parameters[:, :2], (0, 1)), F.pad(parameters[:, 2:], (0, 1))
    return torch.cat([rotation_about_axes(angles), shift[:, :, None]], 2)


def tilt_back(parameters):
    matrix = tilt(parameters)
    return torch.cat([matrix[:, :, :3].mT, matrix[:, :, 3:]], 2)


def tilt_y_first(parameters):
    back = tilt_back(torch.cat([-parameters[:, :2], parameters[:, 2:]], 1))
    return back  # (R_y(-y) R_x(-x))^T = R_x(x) R_y(y)


def tilt_with_angles_swapped(parameters):
    return tilt(parameters[:, [1, 0, 2, 3]])


def tilt_with_shifts_swapped(parameters):
    return tilt(parameters[:, [0, 1, 3, 2]])


def tilt_in_degrees(parameters):
    return tilt(torch.cat([torch.deg2rad(parameters[:, :2]), parameters[:, 2:]], 1))


def tilt_without_shift(parameters):
    return tilt(parameters)[:, :, :3]


GRID, THETA = 32 * 40 * 50 * 60 * 12, 32 * 48
X_AFTER_Y = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("15-1", theta(1, 4 / 24)),
        ("15-2", weights(0.2, 0.5, 0.75)),
        ("15-3", trilinear),
        ("15-4", X_AFTER_Y),
        ("15-5", spread),
        ("15-6", [GRID, THETA]),
        ("15-7", tilt),
    ],
)
def test_a_right_answer_passes(exercise, answer, capsys):
    check(exercise, answer)
    assert capsys.readouterr().out.startswith(f"Exercise {exercise}: correct.")


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("15-1", theta(1, 2.0), "halves of the volume"),
        ("15-1", theta(1, 2 / 24), "2 long, not 1"),
        ("15-1", theta(1, 4 / 20), "number of layers"),
        ("15-1", theta(1, 4 / 28), "number of columns"),
        ("15-1", theta(1, -4 / 24), "where to look"),
        ("15-1", theta(1, 4 / 23), "align_corners=True"),
        ("15-1", theta(0, 4 / 24), "the first row is x"),
        ("15-1", theta(2, 4 / 24), "the third row is z"),
        ("15-1", theta(1, 4 / 24)[:, :3], "should have shape"),
        ("15-2", weights(0.75, 0.5, 0.2), "change fastest"),
        ("15-2", weights(0.8, 0.5, 0.25), "the more it counts"),
        ("15-2", weights(0.2, 0.5, 0.25), "three quarters"),
        ("15-2", [1 / 8] * 8, "the very middle"),
        ("15-3", trilinear_swapped, "the last index"),
        ("15-3", trilinear_clamped, "counts 0"),
        ("15-3", one_layer, "this reads one layer"),
        ("15-4", [[0, 1, 0], [0, 0, -1], [-1, 0, 0]], "on the right"),
        ("15-4", [[0, 1, 0], [0, 0, 1], [1, 0, 0]], "the inverse"),
        ("15-4", [[0, 0, -1], [-1, 0, 0], [0, 1, 0]], "z should go towards x"),
        ("15-4", [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], "y should go towards z"),
        ("15-4", [[0, 0, -1], [1, 0, 0], [0, -1, 0]], "both the wrong way"),
        ("15-5", spread_as_mean, "the gradient of a mean"),
        ("15-5", spread_to_the_first, "not the first alone"),
        ("15-5", spread_not_at_all, "the result has D layers"),
        ("15-5", spread_last, "third dimension"),
        ("15-6", [GRID // 12 * 8, THETA], "three coordinates"),
        ("15-6", [GRID // 12 * 16, THETA], "not part of the grid"),
        ("15-6", [GRID // 4, THETA // 4], "4 bytes"),
        ("15-6", [GRID // 32, THETA // 32], "the batch has 32"),
        ("15-6", [GRID // 32, THETA], "its own grid"),
        ("15-6", [GRID * 2, THETA], "share a grid"),
        ("15-6", [GRID, 32 * 24], "3 x 4"),
        ("15-7", tilt_y_first, "about y first"),
        ("15-7", tilt_back, "transposed"),
        ("15-7", tilt_with_angles_swapped, "angles are swapped"),
        ("15-7", tilt_with_shifts_swapped, "shifts are swapped"),
        ("15-7", tilt_in_degrees, "radians already"),
        ("15-7", tilt_without_shift, "fourth column"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)
