"""Chapter 05: each typical wrong answer is told what is wrong with it, and right ones pass."""

import math

import pytest
import torch

from verdicts import assert_is_correct, assert_mistake_is_named


def parts(theta, target):
    difference = (theta - target).unflatten(1, (2, 3))
    return difference[:, :, :2].square().sum((1, 2)), difference[:, :, 2].square().sum(1)


def grid_error(theta, target):
    block, shift = parts(theta, target)
    return block / 3 + shift


def grid_error_of_entries(theta, target):
    return (theta - target).square().mean(1)


def grid_error_without_third(theta, target):
    return (theta - target).square().sum(1)


def grid_error_of_all(theta, target):
    return grid_error(theta, target).mean()


def grid_error_of_shift(theta, target):
    return parts(theta, target)[1]


def grid_error_of_coordinates(theta, target):
    return grid_error(theta, target) / 2


def head_backward(g, h, W):
    return g.T @ h, g.sum(0), g @ W


def head_backward_transposed(g, h, W):
    return h.T @ g, g.sum(0), g @ W


def head_backward_as_mean(g, h, W):
    return g.T @ h / len(g), g.mean(0), g @ W


def head_backward_for_each_bias(g, h, W):
    return g.T @ h, g, g @ W


def head_backward_at_the_start(g, h, W):
    return g.T @ h, g.sum(0), 0 * h


def head_backward_of_two(g, h, W):
    return g.T @ h, g.sum(0)


def centres(maps, x=None, y=None, mass=None):
    height, width = maps.shape[2:]
    x = (2 * torch.arange(width) + 1) / width - 1 if x is None else x
    y = (2 * torch.arange(height) + 1) / height - 1 if y is None else y
    mass = maps.sum((2, 3)) if mass is None else mass
    return torch.stack([(maps.sum(2) * x).sum(2) / mass, (maps.sum(3) * y).sum(2) / mass], 2)


def centres_swapped(maps):
    return centres(maps).flip(2)


def centres_aligned(maps):
    return centres(maps, *(torch.linspace(-1, 1, extent) for extent in (maps.shape[3], maps.shape[2])))


def centres_in_pixels(maps):
    return centres(maps, torch.arange(maps.shape[3]), torch.arange(maps.shape[2]))


def centres_not_divided(maps):
    return centres(maps, mass=torch.ones(maps.shape[:2]))


def centres_by_mean(maps):
    return centres(maps, mass=torch.full(maps.shape[:2], float(maps[0, 0].numel())))


def centres_flat(maps):
    return centres(maps).flatten(1)


def centres_of_one_size(maps):
    return centres(maps, (2 * torch.arange(6) + 1) / 6 - 1, (2 * torch.arange(4) + 1) / 4 - 1)


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("05-1", 10_960, "the head is missing"),
        ("05-1", 11_086, "the six of Equation 1"),
        ("05-1", 10_900, "the head and the biases"),
        ("05-1", 1_523, "reads 20 channels"),
        ("05-1", 17_023, "42 x 42 pixels"),
        ("05-1", 10_603, "fully connected layer of 20 units"),
        ("05-2", grid_error_of_entries, "mean over the six entries"),
        ("05-2", grid_error_without_third, "none of it"),
        ("05-2", grid_error_of_all, "one number for each"),
        ("05-2", grid_error_of_shift, "the block moves points too"),
        ("05-2", grid_error_of_coordinates, "do not average them"),
        ("05-3", head_backward_transposed, "transpose"),
        ("05-3", head_backward_as_mean, "their gradients add up"),
        ("05-3", head_backward_for_each_bias, "one bias serves all"),
        ("05-3", head_backward_at_the_start, "at the start only"),
        ("05-3", head_backward_of_two, "three tensors"),
        ("05-4", [9, 1], "three times as many pixels"),
        ("05-4", [3, 3], "nine times as many terms"),
        ("05-4", [3, 27], "swapped"),
        ("05-4", [12, 3], "do not add"),
        ("05-4", [8, 2], "twice the size"),
        ("05-5", 0.1, "falls with its square"),
        ("05-5", 0.81, "1 minus that"),
        ("05-5", 1 - math.tanh(0.9) ** 2, "do not take tanh again"),
        ("05-5", 1 - 0.54**2, "divide by 0.6"),
        ("05-6", centres_swapped, "x comes before y"),
        ("05-6", centres_aligned, "align_corners=True"),
        ("05-6", centres_in_pixels, "these are in pixels"),
        ("05-6", centres_not_divided, "a brighter map"),
        ("05-6", centres_by_mean, "not by the number of pixels"),
        ("05-6", centres_flat, "the shape (N, C, 2)"),
        ("05-6", centres_of_one_size, "your function raised"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("05-1", 11_023),
        ("05-2", grid_error),
        ("05-3", head_backward),
        ("05-4", [27, 3]),
        ("05-5", 0.19),
        ("05-6", centres),
    ],
)
def test_a_right_answer_is_correct(exercise, answer, capsys):
    assert_is_correct(exercise, answer, capsys)
