"""Checks of chapter 06's exercises: the spatial transformer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.data import Pose
from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect
from stn.transforms import Affine

BODY = {"body.1.weight", "body.1.bias", "body.3.weight", "body.3.bias"}
HEAD = {"head.weight", "head.bias"}


@exercise("06-1")
def changed(answer: Any) -> str:
    expect(isinstance(answer, (list, tuple, set)), f"changed should be a list; got {type(answer).__name__}")
    given = {str(name) for name in answer}
    for name in sorted(given - BODY - HEAD):
        raise Wrong(f"there is no parameter {name!r}")
    expect(
        not given & BODY,
        "the body's gradient is multiplied by the head's weights on its way, and these are zero",
    )
    expect(
        "head.weight" in given,
        "the gradient of the head's weights is that of theta times what the body says; neither is zero",
    )
    expect("head.bias" in given, "the gradient of the head's bias is that of theta, which is not zero")
    return "From the second step on all six do."


@exercise("06-2")
def bias(answer: Any) -> str:
    mistakes = [
        ([0, 0, 0], "with s = 0 every output pixel looks at the same point, the centre"),
        ([1, 1, 0], "t_x = 1 looks half a canvas to the right"),
        ([1, 1, 1], "t_x = t_y = 1 looks half a canvas away, both ways"),
        ([0, 0, 1], "the scale comes first: theta is (s, t_x, t_y)"),
        ([1, 0, 0, 0, 1, 0], "these are the six numbers of Equation 1; Equation 2 has three"),
    ]
    expect_right(answer, [1, 0, 0], "the bias", mistakes)
    return "It is what stn.Attention().identity() returns."


@exercise("06-3")
def parameters(answer: Any) -> str:
    weights = 42 * 42 * 32 + 2 * 32 * 32 + 32 * 6
    biases = 3 * 32 + 6
    mistakes = [
        (weights, "the biases are missing: one for each unit and each entry of theta"),
        (weights + biases - 198, "the head is missing: 32 features to 6 numbers, and 6 biases"),
        (weights - 192, "the biases and the head are missing"),
        (weights + biases - 1056, "between three hidden layers there are two layers of weights"),
        (weights + biases + 1056, "between three hidden layers there are two layers of weights"),
        ((28 * 28 - 42 * 42) * 32 + weights + biases, "the canvas has 42 x 42 pixels, not 28 x 28"),
    ]
    expect_right(answer, weights + biases, "the number of parameters", mistakes, tolerance=0.5)
    return "Nearly all of them look at pixels; six numbers out cost next to nothing."


@exercise("06-4")
def ideal_theta(answer: Callable[..., Any]) -> str:
    for angle, scale, right, down in ((0.0, 1.0, 0.0, 0.0), (30.0, 0.8, 5.0, -3.0), (-20.0, 1.2, -2.0, 4.0)):
        pose = Pose(
            torch.tensor([angle]), torch.tensor([scale]), torch.tensor([[right, down]]), (28, 28), (42, 42)
        )
        theta = pose.inverse_matrix()[0]
        transposed = torch.cat([theta[:, :2].mT, theta[:, 2:]], 1)
        undone = theta / torch.tensor([scale**2, scale**2, 1.0])
        mistakes = [
            (
                pose.matrix()[0],
                "this theta makes the canvas from the digit; the question is for the way back",
            ),
            (transposed, "the angle has the wrong sign: y points down, so the sines swap theirs"),
            (undone, "an enlarged digit needs a larger grid: multiply by the scale"),
            (
                torch.cat([1.5 * theta[:, :2], theta[:, 2:]], 1),
                "28 pixels of output see 28 of the canvas's 42: the block lacks a factor of 28 / 42",
            ),
            (
                torch.cat([theta[:, :2], theta[:, 2:] * 1.5], 1),
                "the translation is in pixels of the canvas: a unit is 42 / 2 of them, not 28 / 2",
            ),
            (
                torch.cat([theta[:, :2], theta[:, 2:] / 2], 1),
                "from -1 to 1 is the whole canvas: a unit is 42 / 2 pixels, not 42",
            ),
            (
                torch.cat([theta[:, :2], theta[:, 2:] * 21], 1),
                "the translation is still in pixels; a unit is 42 / 2 of them",
            ),
            (
                torch.cat([theta[:, :2], -theta[:, 2:]], 1),
                "the grid follows the digit: right if it went right, down if it went down",
            ),
        ]
        what = f"ideal_theta{(angle, scale, right, down)}"
        expect_right(_matrix(answer(angle, scale, right, down)), theta, what, mistakes)
    return "It is what Pose.inverse_matrix() computes."


@exercise("06-5")
def similarity_matrix(answer: Callable[..., Any]) -> str:
    theta = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.8, 0.3, 0.1, -0.2], [1.1, -0.4, 0.0, 0.5]])
    p, q, t_x, t_y = theta.unbind(1)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, 1).unflatten(1, (2, 3))

    right = matrix(p, -q, t_x, q, p, t_y)
    mistakes = [
        (matrix(p, q, t_x, -q, p, t_y), "the signs of the two q: -q in the first row, q in the second"),
        (matrix(p, q, t_x, q, p, t_y), "the q of the first row has a minus sign"),
        (matrix(p, -q, t_y, q, p, t_x), "t_x and t_y are swapped"),
        (matrix(p, q, -q, p, t_x, t_y), "these are the columns of A; reshape fills row by row"),
        (right.flatten(1), "the numbers are right; give them the shape (N, 2, 3)"),
    ]
    expect_right(answer(theta), right, "matrix(theta)", mistakes)
    return "Put it into with_transformer(): four parameters do nearly as well as six."


@exercise("06-6")
def outside(answer: Callable[..., Any]) -> str:
    inside = Affine().grid(torch.tensor([[0.5, 0.0, 0.2, 0.0, 0.5, 0.1]]), (4, 6))
    beyond = Affine().grid(torch.tensor([[1.5, 0.2, 0.3, -0.2, 1.1, -0.9]]), (4, 6))
    for grid in (inside, beyond):
        excess = (grid.abs() - 1).clamp(min=0)
        beyond_one = (grid - 1).clamp(min=0)
        mistakes = [
            ((grid.abs() - 1).square().mean(), "it also punishes coordinates that lie between -1 and 1"),
            (excess.mean(), "these are the distances; their squares were asked for"),
            (excess.square().sum(), "this is the sum; the average does not depend on the output's size"),
            (excess.square().sum(-1).mean(), "this averages over points; there are two coordinates in each"),
            (beyond_one.square().mean(), "a coordinate below -1 lies outside, too"),
            ((grid.abs() > 1).float().mean(), "it counts; a count has no gradient that could push back"),
            (grid.square().mean(), "it punishes every coordinate but 0: that draws the grid to the centre"),
        ]
        # Inside, several mistakes give the right answer, 0; the second grid tells them apart.
        expect_right(answer(grid), excess.square().mean(), "the penalty", mistakes, tolerance=1e-5)
    probe = beyond.clone().requires_grad_()
    penalty = answer(probe)
    expect(
        isinstance(penalty, Tensor) and penalty.requires_grad, "no gradient flows back from it to the grid"
    )
    return "Added to the loss with a small factor, it calls stray grids back."


def _matrix(answer: Any) -> Tensor:
    try:
        theta = torch.as_tensor(answer, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"theta should be a 2 × 3 list or tensor; got {type(answer).__name__}") from None
    expect(theta.shape == (2, 3), f"theta should have 2 rows and 3 columns; got shape {tuple(theta.shape)}")
    return theta
