"""Checks of chapter 04's exercises: gradients."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise
from stn.transforms import Attention

PICTURE = torch.tensor([[3.0, 1.0, 4.0, 1.0], [5.0, 9.0, 2.0, 6.0], [5.0, 3.0, 5.0, 8.0]])
BETWEEN = [(1.75, 0.25), (0.25, 1.5), (2.5, 0.75)]
ON_A_PIXEL = [(2.0, 0.25), (1.25, 1.0), (1.0, 1.0), (3.0, 0.5), (2.0, 2.0)]
OUTSIDE = [(-0.25, 0.5), (3.5, 1.25), (-1.0, 1.5), (1.5, 2.5), (9.0, 7.0)]


@exercise("04-1")
def two_units(answer: Any) -> str:
    mistakes = [
        ([4.0, 6.0], "the second is that of align_corners=True, where a unit of x is (W - 1) / 2 pixels"),
        ([4.0, 4.0], "a unit of x is not a pixel: 2 units are the whole row"),
        ([4.0, 2.0], "a step of 1 in x is a step of W / 2 pixels, so the slope grows by that factor"),
        ([4.0, 16.0], "the row is 2 units of x long, not 1"),
        ([8.0, 4.0], "the two are swapped: first the slope in pixels"),
        ([-4.0, -8.0], "the sign: to the right the row rises here"),
        ([5.0, 10.0], "the first is the value; the slope is the difference of the two pixels"),
        ([3.0, 6.0], "the slope between two pixels does not depend on where between them the point lies"),
    ]
    expect_right(answer, [4.0, 8.0], "the list of slopes", mistakes)
    return "A network that predicts x feels every slope W / 2 times as strongly as one that predicts pixels."


@exercise("04-2")
def on_the_pixel(answer: Any) -> str:
    mistakes = [
        ([2.0, -3.0, 3.0, -0.5], "left and right are swapped"),
        ([3.0, 2.0, 3.0, 2.5], "the slope to the left: the row falls from 6 to 3 as the point moves right"),
        ([-3.0, 2.0, 2.0, -0.5], "Equation 7 excludes both neighbours, so it knows nothing of the 5"),
        ([-3.0, 2.0, -0.5, -0.5], "Equation 7 excludes both neighbours: only the pixel itself is left"),
        ([-3.0, 2.0, -3.0, -0.5], "the pixel itself falls under m >= x: the case 1, not -1"),
        ([-3.0, 2.0, 3.0, -1.0], "gradcheck divides by both nudges together: the mean, not the sum"),
        ([-3.0, 2.0, 3.0, 2.0], "gradcheck nudges to both sides of the kink"),
    ]
    expect_right(answer, [-3.0, 2.0, 3.0, -0.5], "the list of slopes", mistakes)
    return "Four answers to one question, and only two of them are slopes of the row."


@exercise("04-3")
def slopes(answer: Callable[..., Any]) -> str:
    for a, b in [*BETWEEN, *ON_A_PIXEL, *OUTSIDE]:
        across, down = _slopes(a, b, _right)
        nearest = min(max(a, 0.0), 3.0), min(max(b, 0.0), 2.0)
        mistakes = [
            ((down, across), "the two are swapped: first across, by a, then down, by b"),
            ((-across, -down), "the sign: the slope is right minus left, below minus above"),
            (_slopes(a, b, _literal), "at a pixel this is Equation 7 read literally, the value"),
            (_slopes(a, b, _left), "at a kink this is the slope to the left; the right one is asked for"),
            (_slopes(a, b, _mean), "at a kink this is the mean of both sides; the right one is asked for"),
            ((2 * across, 1.5 * down), "that is per unit of x and y; per pixel is asked for"),
            (_slopes(*nearest, _right), "pixels that do not exist count 0; these are those of the border"),
        ]
        expect_right(answer(PICTURE, a, b), (across, down), f"slopes at a = {a}, b = {b}", mistakes)
    return "Four neighbours and no case: floor has chosen the side."


@exercise("04-4")
def paint(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(4)
    values = torch.rand(40, generator=generator) + 0.5
    a, b = 8 * torch.rand(40, generator=generator) - 1, 6 * torch.rand(40, generator=generator) - 1
    scattered, single = (values, a, b), (torch.tensor([2.0]), torch.tensor([1.25]), torch.tensor([2.5]))
    for points in (single, scattered):
        right = _paint(*points, 5, 7)
        mistakes = [
            (
                _paint(points[0], points[2], points[1], 5, 7),
                "a goes across, b goes down",
            ),
            (_paint(*points, 5, 7, clamped=True), "what falls outside is lost; here it lands on the border"),
            (_paint(torch.ones_like(points[0]), *points[1:], 5, 7), "the points' values are not used"),
            (
                _paint(points[0], (points[1] + 0.5).floor(), (points[2] + 0.5).floor(), 5, 7),
                "each point gives all to the nearest pixel; it should share among four",
            ),
        ]
        given = answer(*points, 5, 7)
        if isinstance(given, Tensor) and given.shape == right.shape and given.sum() < right.sum() - 1e-3:
            raise Wrong("something is lost on the way: where points share a pixel, all of them should count")
        expect_right(given, right, "the picture", mistakes)
    return "This is the gradient of an image, and the transpose of sampling."


@exercise("04-5")
def attention_gradient(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(5)
    delta = torch.randn(3, 4, 5, 2, generator=generator)
    attention = Attention()
    G = attention.grid(attention.identity()[None], (4, 5))[0]
    theta = attention.identity().repeat(3, 1).requires_grad_()
    (right,) = torch.autograd.grad(attention.grid(theta, (4, 5)), theta, delta)
    of_each = delta * G
    of_scale, of_translation = right[:, :1], right[:, 1:]
    mistakes = [
        (right / 20, "that is the mean over the pixels; every pixel adds its wish to the same three numbers"),
        (torch.cat([of_translation, of_scale], 1), "the order is s, t_x, t_y"),
        (
            torch.cat([of_each[..., :1].sum((1, 2)), of_translation], 1),
            "s scales y too: the gradient of s has a part from each coordinate",
        ),
        (
            torch.cat([delta.sum((1, 2, 3))[:, None], of_translation], 1),
            "x^s = s x^t + t_x: the gradient of s weighs each pixel's wish by where the pixel is, by G",
        ),
        (
            torch.cat([of_scale, of_translation.flip(1)], 1),
            "t_x belongs to x, the first of the two coordinates",
        ),
    ]
    expect_right(answer(delta, G), right, "the gradient of (s, t_x, t_y)", mistakes)
    return "The same sums as for the affine theta, and two of them added."


@exercise("04-6")
def with_glasses(answer: Callable[..., Any]) -> str:
    row = torch.tensor([0.0, 0.0, 0.0, 1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    places = torch.tensor([0.25, 2.5, 3.75, 4.5, 6.75, 8.25])
    for reach in (1.5, 3.0):
        a = places.clone().requires_grad_()
        value = answer(row, a, reach)
        sharp = _value(row, places)
        ahead, behind = _value(row, places + reach), _value(row, places - reach)
        blurred = "the value should stay sharp; this is what it sees far away"
        expect_right(value, sharp, "the value", [((ahead + behind) / 2, blurred)])
        if not (isinstance(value, Tensor) and value.requires_grad):
            raise Wrong("the value has no gradient: a itself, not detached, has to be in it")
        (slope,) = torch.autograd.grad(value.sum(), a)
        far, own = (ahead - behind) / (2 * reach), _value_slope(row, places)
        mistakes = [
            (own, "this is the bilinear slope, one pixel far: nothing looks `reach` pixels away"),
            (own + far, "the row's own slope is added to the far one: detach the value"),
            (far * 2, "from a - reach to a + reach are 2 reach pixels"),
            (far * 2 * reach, "a slope is a difference divided by the distance, 2 reach pixels"),
            (-far, "the sign: ahead minus behind"),
            ((ahead - sharp) / reach, "this looks ahead only; look both ways"),
        ]
        expect_right(slope, far, f"the slope for reach {reach:g}", mistakes)
    return "It is the slope of the row blurred by a box 2 reach pixels wide: blur without blurring the value."


def _right(t: float) -> float:
    """The derivative of max(0, 1 - |t|), to the right of its kinks."""
    return 1.0 if -1 <= t < 0 else -1.0 if 0 <= t < 1 else 0.0


def _left(t: float) -> float:
    return 1.0 if -1 < t <= 0 else -1.0 if 0 < t <= 1 else 0.0


def _mean(t: float) -> float:
    return (_left(t) + _right(t)) / 2


def _literal(t: float) -> float:
    """The cases of Eq. 7, with t = x - m."""
    return 0.0 if abs(t) >= 1 else 1.0 if t <= 0 else -1.0


def _slopes(a: float, b: float, slope: Callable[[float], float]) -> tuple[float, float]:
    """PICTURE's slopes across and down, by Eq. 7 with a derivative of the kernel of one's choice."""
    across = down = 0.0
    for n in range(3):
        for m in range(4):
            value = PICTURE[n, m].item()
            across += value * slope(a - m) * max(0.0, 1 - abs(b - n))
            down += value * max(0.0, 1 - abs(a - m)) * slope(b - n)
    return across, down


def _paint(values: Tensor, a: Tensor, b: Tensor, height: int, width: int, clamped: bool = False) -> Tensor:
    image = torch.zeros(height, width)
    for value, across, down in zip(values.tolist(), a.tolist(), b.tolist(), strict=True):
        for n in (math.floor(down), math.floor(down) + 1):
            for m in (math.floor(across), math.floor(across) + 1):
                share = value * (1 - abs(across - m)) * (1 - abs(down - n))
                if clamped or (0 <= n < height and 0 <= m < width):
                    image[min(max(n, 0), height - 1), min(max(m, 0), width - 1)] += share
    return image


def _value(row: Tensor, a: Tensor) -> Tensor:
    """The row's bilinear value at places a (K,), 0 outside."""
    weights = (1 - (a[:, None] - torch.arange(len(row))).abs()).clamp(min=0)
    return (row * weights).sum(1)


def _value_slope(row: Tensor, a: Tensor) -> Tensor:
    """The slope of `_value`, off the kinks."""
    t = a[:, None] - torch.arange(len(row))
    return -(row * torch.where(t.abs() < 1, t.sign(), 0.0)).sum(1)
