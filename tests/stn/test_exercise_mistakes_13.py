"""Chapter 13: each typical wrong answer is told what is wrong with it, and right ones pass."""

import pytest
import torch
from torch.nn.functional import pad

from verdicts import assert_is_correct, assert_mistake_is_named

THIRD = 1 / 3


def windows(xs=(-2 * THIRD, 0.0, 2 * THIRD), ys=(-2 * THIRD, 2 * THIRD)):
    return [[x, y] for y in ys for x in xs]


def sum_of(p, places=(0, 1, 2)):
    total = torch.ones_like(p[:, 0, :1])
    for place in places:
        total = sum(pad(total * p[:, place, d, None], (d, 9 - d)) for d in range(10))
    return total


def sum_of_two(p):
    return sum_of(p, (0, 1))


def sum_of_the_first(p):
    return sum_of(p, (0, 0, 0))


def sum_in_logarithms(p):
    return sum_of(p).log()


def sum_counted(p):
    return sum_of(torch.full_like(p, 0.1))


def sum_backwards(p):
    return sum_of(p).flip(1)


def sum_of_probabilities(p):
    return p.sum(1)


def composed(A_1, A_2, shift=None):
    block = A_1[:, :, :2] @ A_2[:, :, :2]
    shift = A_1[:, :, :2] @ A_2[:, :, 2:] + A_1[:, :, 2:] if shift is None else shift
    return torch.cat([block, shift], 2)


def composed_in_the_other_order(A_1, A_2):
    return composed(A_2, A_1)


def composed_with_shifts_added(A_1, A_2):
    return composed(A_1, A_2, A_1[:, :, 2:] + A_2[:, :, 2:])


def composed_without_the_first_shift(A_1, A_2):
    return composed(A_1, A_2, A_1[:, :, :2] @ A_2[:, :, 2:])


def composed_as_sum(A_1, A_2):
    return A_1 + A_2


def composed_by_entries(A_1, A_2):
    return A_1 * A_2


def composed_with_last_row(A_1, A_2):
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(A_1), 1, 3)
    return torch.cat([A_1, last], 1) @ torch.cat([A_2, last], 1)


def unturned(maps, turns=-1, rolled=-1):
    return torch.rot90(maps, turns, (2, 3)).unflatten(1, (-1, 4)).roll(rolled, 2).flatten(1, 2)


def unturned_places(maps):
    return unturned(maps, rolled=0)


def unturned_channels(maps):
    return unturned(maps, turns=0)


def unturned_rolled_up(maps):
    return unturned(maps, rolled=1)


def unturned_rolled_over_all(maps):
    return torch.rot90(maps, -1, (2, 3)).roll(-1, 1)


def unturned_groups(maps):
    return torch.rot90(maps, -1, (2, 3)).unflatten(1, (-1, 4)).roll(-1, 1).flatten(1, 2)


def unturned_the_wrong_way(maps):
    return unturned(maps, turns=1)


def turned_once_more(maps):
    return unturned(maps, turns=1, rolled=1)


def unturned_in_groups(maps):
    return unturned(maps).unflatten(1, (-1, 4))


def theta_of(U, layers, head):
    return head(layers(U).flatten(1))


def look_again(U, layers, head, transform):
    return layers(transform.sample(U, theta_of(U, layers, head), U.shape[2:]))


def look_once(U, layers, head, transform):
    return layers(U)


def warp_only(U, layers, head, transform):
    return transform.sample(U, theta_of(U, layers, head), U.shape[2:])


def warp_features(U, layers, head, transform):
    return transform.sample(layers(U), theta_of(U, layers, head), U.shape[2:])


def say_where_only(U, layers, head, transform):
    return theta_of(U, layers, head)


def look_again_flat(U, layers, head, transform):
    return look_again(U, layers, head, transform).flatten(1)


def look_again_detached(U, layers, head, transform):
    return look_again(U, layers, head, transform).detach()


def look_again_with_theta_detached(U, layers, head, transform):
    return layers(transform.sample(U, theta_of(U, layers, head).detach(), U.shape[2:]))


@pytest.mark.parametrize(
    ("exercise", "answer", "sentence"),
    [
        ("13-1", 450, "the biases are missing"),
        ("13-1", 612, "the whole head of four"),
        ("13-1", 153, "there are three"),
        ("13-1", 9, "these are the biases"),
        ("13-1", 918, "Equation 1 has six numbers"),
        ("13-1", 306, "attention also has a scale"),
        ("13-2", [[y, x] for x, y in windows()], "x comes before y"),
        ("13-2", torch.tensor(windows()).T.tolist(), "2 rows and 6 columns"),
        ("13-2", [[x, y] for x in (-2 * THIRD, 0, 2 * THIRD) for y in (-2 * THIRD, 2 * THIRD)], "row by row"),
        ("13-2", [[-x, -y] for x, y in windows()], "y points down"),
        ("13-2", windows(xs=(-THIRD, 0.0, THIRD)), "they overlap"),
        ("13-2", windows(xs=(-1.0, 0.0, 1.0)), "these are centres"),
        ("13-2", windows(ys=(-THIRD, THIRD)), "touch in the middle"),
        ("13-2", windows(ys=(-0.5, 0.5)), "leaves a gap"),
        ("13-2", windows(ys=(-1.0, 1.0)), "these are centres"),
        ("13-2", windows((1 / 6, 1 / 2, 5 / 6), (1 / 6, 5 / 6)), "count from 0 to 1"),
        ("13-3", sum_of_two, "add the third"),
        ("13-3", sum_of_the_first, "for all three"),
        ("13-3", sum_in_logarithms, "logarithms"),
        ("13-3", sum_counted, "weigh each by its probability"),
        ("13-3", sum_backwards, "the sum 0"),
        ("13-3", sum_of_probabilities, "the digits have to be"),
        ("13-4", composed_in_the_other_order, "A_2 stands on the right"),
        ("13-4", composed_with_shifts_added, "A_1's block applies to it"),
        ("13-4", composed_without_the_first_shift, "got lost"),
        ("13-4", composed_as_sum, "not a sum"),
        ("13-4", composed_by_entries, "entry by entry"),
        ("13-4", composed_with_last_row, "leave the last row"),
        ("13-5", 1, "half a place"),
        ("13-5", 2, "the second pool"),
        ("13-5", 3, "the number of layers"),
        ("13-5", 4, "the last convolution"),
        ("13-5", 6, "multiply"),
        ("13-5", 16, "a smaller one"),
        ("13-5", 32, "without a stride"),
        ("13-6", unturned_places, "neighbour's channel"),
        ("13-6", unturned_channels, "turn the maps back too"),
        ("13-6", unturned_rolled_up, "the wrong way"),
        ("13-6", unturned_rolled_over_all, "within each group of four"),
        ("13-6", unturned_groups, "you rolled the groups"),
        ("13-6", unturned_the_wrong_way, "turned once more"),
        ("13-6", turned_once_more, "both places and channels"),
        ("13-6", unturned_in_groups, "the shape (N, 4 K, H', W')"),
        ("13-7", look_once, "theta is not used"),
        ("13-7", warp_only, "what the layers make of it"),
        ("13-7", warp_features, "this warps the features"),
        ("13-7", say_where_only, "this is theta"),
        ("13-7", look_again_flat, "leave the features their shape"),
        ("13-7", look_again_detached, "no gradient flows back from it to the layers"),
        ("13-7", look_again_with_theta_detached, "to the head"),
    ],
)
def test_a_typical_mistake_is_named(exercise, answer, sentence, capsys):
    assert_mistake_is_named(exercise, answer, sentence, capsys)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("13-1", 459),
        ("13-2", windows()),
        (
            "13-2",
            [[-0.667, -0.667], [0, -0.667], [0.667, -0.667], [-0.667, 0.667], [0, 0.667], [0.667, 0.667]],
        ),
        ("13-3", sum_of),
        ("13-4", composed),
        ("13-5", 8),
        ("13-6", unturned),
        ("13-7", look_again),
    ],
)
def test_a_right_answer_is_correct(exercise, answer, capsys):
    assert_is_correct(exercise, answer, capsys)
