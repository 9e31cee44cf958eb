"""Checks of chapter 13's exercises: many transformers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise, expect
from stn.transforms import Affine


@exercise("13-1")
def added(answer: Any) -> str:
    mistakes = [
        (3 * 50 * 3, "the biases are missing: one for each number of theta"),
        (4 * (50 * 3 + 3), "this is the whole head of four; one transform's part was there before"),
        (50 * 3 + 3, "this is what one more costs, and there are three"),
        (3 * 3, "these are the biases; each number of theta also has a weight for each of the 50 units"),
        (3 * (50 * 6 + 6), "Equation 1 has six numbers; attention, Equation 2, has three"),
        (3 * (50 * 2 + 2), "attention also has a scale: (s, t_x, t_y)"),
    ]
    expect_right(answer, 3 * (50 * 3 + 3), "the number of parameters", mistakes, tolerance=0.5)
    return "The body is shared, whatever T is."


@exercise("13-2")
def start(answer: Any) -> str:
    def windows(xs: tuple[float, ...], ys: tuple[float, ...]) -> Tensor:
        return torch.tensor([[x, y] for y in ys for x in xs])

    thirds, edges = (-2 / 3, 0.0, 2 / 3), (-2 / 3, 2 / 3)
    right = windows(thirds, edges)
    mistakes = [
        (right.flip(1), "x comes before y: (t_x, t_y)"),
        (right.T, "these are 2 rows and 6 columns; give each window its own row (t_x, t_y)"),
        (
            right.unflatten(0, (2, 3)).transpose(0, 1).flatten(0, 1),
            "row by row: three of the upper row first",
        ),
        (-right, "the upper left comes first, and y points down: both are negative there"),
        (
            windows((-1 / 3, 0.0, 1 / 3), edges),
            "a window is 2 / 3 wide, since the image is from -1 to 1: 1 / 3 apart they overlap",
        ),
        (
            windows((-1.0, 0.0, 1.0), edges),
            "these are centres: at -1 and 1 half of the window lies beside the image",
        ),
        (
            windows(thirds, (-1 / 3, 1 / 3)),
            "so the two rows touch in the middle; they should be at the edges",
        ),
        (windows(thirds, (-0.5, 0.5)), "a window is 2 / 3 high: centred at -0.5 it leaves a gap at the edge"),
        (
            windows(thirds, (-1.0, 1.0)),
            "these are centres: at -1 and 1 half of the window lies beside the image",
        ),
        (
            windows((1 / 6, 1 / 2, 5 / 6), (1 / 6, 5 / 6)),
            "these count from 0 to 1; normalised coordinates run from -1 to 1",
        ),
    ]
    expect_right(answer, right, "start", mistakes, tolerance=0.005)
    return "stn.Localisation(..., start=torch.tensor(start)) starts there."


@exercise("13-3")
def sum_of_three(answer: Callable[..., Any]) -> str:
    p = torch.rand(4, 3, 10, generator=torch.Generator().manual_seed(0)).softmax(2)
    digit = torch.arange(10)
    totals = (digit[:, None, None] + digit[:, None] + digit).flatten()
    joint = torch.einsum("na,nb,nc->nabc", p[:, 0], p[:, 1], p[:, 2]).flatten(1)
    right = p.new_zeros(4, 28).index_add(1, totals, joint)
    two = (p[:, 0, :, None] * p[:, 1, None]).flatten(1)
    of_two = p.new_zeros(4, 19).index_add(1, (digit[:, None] + digit).flatten(), two)
    alike = torch.einsum("na,nb,nc->nabc", p[:, 0], p[:, 0], p[:, 0]).flatten(1)
    mistakes = [
        (of_two, "this is the sum of the first two digits; add the third in the same way"),
        (right.log(), "these are the logarithms; the probabilities were asked for"),
        (
            p.new_zeros(4, 28).index_add(1, totals, alike),
            "each place has probabilities of its own; you took the first one's for all three",
        ),
        (
            p.new_zeros(4, 28).index_add(1, totals, torch.full_like(joint, 1e-3)),
            "this counts the ways to make each sum; weigh each by its probability",
        ),
        (right.flip(1), "the first of the 28 belongs to the sum 0, the last to 27"),
        (p.sum(1), "probabilities of the same digit were added; the digits have to be"),
    ]
    expect_right(answer(p), right, "the probabilities", mistakes, tolerance=1e-6)
    return "To add independent numbers is to convolve their distributions, in any order."


@exercise("13-4")
def composed_matrix(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(3, 2, 3, generator=generator) for _ in range(2))
    family = Affine()

    def product(a: Tensor, b: Tensor) -> Tensor:
        return family.matrix(family.compose(a.flatten(1), b.flatten(1)))

    right = product(first, second)
    blocks = first[:, :, :2] @ second[:, :, :2]
    mistakes = [
        (
            product(second, first),
            "the order: the output's pixels are mapped by A_2 first, and A_2 stands on the right",
        ),
        (
            torch.cat([blocks, first[:, :, 2:] + second[:, :, 2:]], 2),
            "the second look's shift is counted in what the first shows: A_1's block applies to it",
        ),
        (
            torch.cat([blocks, first[:, :, :2] @ second[:, :, 2:]], 2),
            "the first look's own shift got lost",
        ),
        (first + second, "to map by the one and then by the other is a product, not a sum"),
        (first * second, "this multiplies entry by entry; a matrix product was wanted"),
        (family.homogeneous(right.flatten(1)), "the numbers are right; leave the last row (0, 0, 1) out"),
    ]
    expect_right(answer(first, second), right, "the matrix", mistakes, tolerance=1e-5)
    return "stn.Affine().compose does it, and InverseCompositional at each look."


@exercise("13-5")
def smallest(answer: Any) -> str:
    mistakes = [
        (2, "after the first pool that is one place, and the second pool takes every second"),
        (4, "after both pools that is one place, and the last convolution takes every second"),
        (6, "strides of layers in a row multiply; they do not add"),
        (3, "it is not the number of layers that counts, but the product of their strides"),
        (1, "one pixel is half a place already after the first pool"),
        (16, "that works too; there is a smaller one"),
        (32, "that works too; a convolution without a stride moves with its input by any number of pixels"),
    ]
    expect_right(answer, 8, "the smallest shift", mistakes, tolerance=0.01)
    return "And one place of the output is eight pixels of the input."


@exercise("13-6")
def unturned(answer: Callable[..., Any]) -> str:
    maps = torch.rand(2, 12, 5, 5, generator=torch.Generator().manual_seed(0))
    back = torch.rot90(maps, -1, (2, 3))
    groups = back.unflatten(1, (-1, 4))
    right = groups.roll(-1, 2).flatten(1, 2)
    forth = torch.rot90(maps, 1, (2, 3)).unflatten(1, (-1, 4))
    mistakes = [
        (back, "the places are right; now each filter's answer stands in its turned neighbour's channel"),
        (groups.roll(1, 2).flatten(1, 2), "rolled the wrong way: filter j now answers as j - 1 did"),
        (back.roll(-1, 1), "roll within each group of four: the last of a group goes to its own first"),
        (groups.roll(-1, 1).flatten(1, 2), "you rolled the groups; roll the four within each"),
        (
            maps.unflatten(1, (-1, 4)).roll(-1, 2).flatten(1, 2),
            "the channels are right; turn the maps back too",
        ),
        (forth.roll(-1, 2).flatten(1, 2), "the maps are turned once more; rot90(..., -1, ...) turns back"),
        (forth.roll(1, 2).flatten(1, 2), "this turns once more, both places and channels; turn back"),
        (groups.roll(-1, 2), "the numbers are right; give them the shape (N, 4 K, H', W')"),
    ]
    expect_right(answer(maps), right, "the features", mistakes, tolerance=1e-6)
    return "Networks that are built so in every layer are called equivariant."


@exercise("13-7")
def look_again(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(0)
    U = torch.rand(2, 1, 8, 8, generator=generator)
    family = Affine()
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU()
    )  # maps of the input's size, to be mistaken
    head = nn.Linear(3 * 8 * 8, 6)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        head.weight.copy_(0.02 * torch.randn(head.weight.shape, generator=generator))
        head.bias.copy_(family.identity())

    maps = layers(U)
    theta = head(maps.flatten(1))
    warped = family.sample(U, theta, (8, 8))
    right = layers(warped)
    mistakes = [
        (maps, "these are the features of the input as it was; theta is not used"),
        (warped, "this is the warped input; return what the layers make of it"),
        (theta, "this is theta; warp the input by it, and return the features of that"),
        (family.sample(maps, theta, (8, 8)), "this warps the features; warp the input"),
        (right.flatten(1), "the numbers are right; leave the features their shape"),
    ]
    given = answer(U, layers, head, family)
    expect_right(given, right, "the features", mistakes)
    expect(isinstance(given, Tensor) and given.requires_grad, "no gradient flows back from it to the layers")
    given.sum().backward()
    expect(
        head.weight.grad is not None,
        "no gradient flows back from it to the head, which could never learn where to look",
    )
    return "One set of layers learns to see, and to say where to look."
