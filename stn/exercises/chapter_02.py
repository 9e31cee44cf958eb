"""Checks of chapter 02's exercises: coordinates and grids."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.data import digits
from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect, expect_close
from stn.transforms import Attention
from stn_kernels import affine_sample


@exercise("02-1")
def five_centres(answer: Any) -> str:
    index = torch.arange(5)
    mistakes = [
        (index / 2 - 1, "these are the centres under align_corners=True, where -1 and 1 are centres"),
        (2 * index / 5 - 1, "these are the left edges of the pixels; a centre is half a pixel farther right"),
        ((2 * index + 1) / 5, "these run from 0 to 2; the picture runs from -1 to 1"),
        (index, "these are pixel coordinates; the normalised ones lie between -1 and 1"),
    ]
    expect_right(answer, (2 * index + 1) / 5 - 1, "the list of centres", mistakes)
    return "An odd row has a pixel in the very middle, at 0."


@exercise("02-2")
def pixels_to_the_right(answer: Any) -> str:
    mistakes = [
        (6.0, "the grid moves 6 pixels to the right; which way does the picture go?"),
        (-5.85, "that is align_corners=True, where 0.3 is a share of 39 pixels"),
        (5.85, "align_corners=True has crept in, and the picture goes the other way than the grid"),
        (-12.0, "-1 to 1 is a length of 2, so 40 pixels are 2 units, not 1"),
        (12.0, "-1 to 1 is a length of 2, and the picture goes the other way than the grid"),
        (-0.3, "that is in normalised units; the question is for pixels"),
    ]
    expect_right(answer, -6.0, "the number of pixels", mistakes)
    return "The grid goes right, the picture left."


@exercise("02-3")
def window(answer: Callable[..., Any]) -> str:
    size = 56
    picture = torch.arange(size * size, dtype=torch.float32).reshape(1, 1, size, size) / size**2
    for row, column, side in ((7, 19, 15), (28, 0, 28), (40, 3, 8), (0, 0, 56)):

        def parameters(
            before: float, extent: int = size, side: int = side, row: int = row, column: int = column
        ) -> tuple[float, ...]:
            """(s, t_x, t_y) for a centre `before` pixels from the window's first edge or centre."""
            return side / extent, 2 * (column + before) / extent - 1, 2 * (row + before) / extent - 1

        s, t_x, t_y = parameters(side / 2)
        corner = "(t_x, t_y) is where the centre of the output looks: the centre of the window, not "
        mistakes = [
            ((s, t_y, t_x), "t_x goes across, with the column, and t_y down, with the row"),
            ((1 / s, t_x, t_y), "s is the share of the picture that the grid covers, so it is at most 1"),
            ((s, t_x + 1, t_y + 1), "t_x and t_y count from the centre of the picture: subtract 1"),
            (parameters(0), corner + "its top left corner"),
            (parameters(0.5), corner + "its first pixel"),
            (
                parameters((side - 1) / 2),
                "(t_x, t_y) is half a pixel short: add half a side, from edge to centre",
            ),
            (
                parameters((side - 1) / 2, size - 1, side - 1),
                "that is right for align_corners=True; here -1 and 1 are the outer edges",
            ),
        ]
        given = answer(row, column, side, size)
        expect_right(given, (s, t_x, t_y), f"(s, t_x, t_y) of window{(row, column, side, size)}", mistakes)
        cut = Attention().sample(picture, torch.tensor([[s, t_x, t_y]]), (side, side))
        slices = picture[:, :, row : row + side, column : column + side]
        expect_close(cut, slices, "the window", tolerance=1e-3)
    return "On a picture of 56 pixels your windows are the slices of the array."


@exercise("02-4")
def quarter_turn(answer: Any) -> str:
    mistakes = [
        ([[0, 1, 0], [-1, 0, 0]], "this turns the picture clockwise; it turns the grid counter-clockwise"),
        ([[0, 1, 0], [1, 0, 0]], "this swaps x and y: it flips the picture about its diagonal, det = -1"),
        ([[0, -1, 0], [-1, 0, 0]], "this flips the picture about its other diagonal, det = -1"),
        ([[-1, 0, 0], [0, -1, 0]], "this is half a turn, 180°"),
        ([[1, 0, 0], [0, 1, 0]], "this is the identity"),
    ]
    theta = _matrix(answer)
    expect_right(theta, [[0, -1, 0], [1, 0, 0]], "theta", mistakes)
    digit = digits("test")[0][3:4]
    turned = affine_sample(digit, theta[None], (28, 28))
    expect_close(turned, torch.rot90(digit, 1, (2, 3)), "the turned digit")
    return "On a digit it gives what torch.rot90 gives."


@exercise("02-5")
def inverse(answer: Callable[..., Any]) -> str:
    theta = torch.tensor(
        [
            [[1.0, 0.0, 0.25], [0.0, 1.0, -0.5]],
            [[0.6, -0.3, 0.2], [0.3, 0.6, -0.1]],
            [[1.5, 0.4, -0.3], [0.0, 0.5, 0.7]],
        ]
    )
    block, shift = theta[:, :, :2], theta[:, :, 2:]
    undone = torch.linalg.inv(block)
    mistakes = [
        (
            torch.cat([undone, -shift], 2),
            "the block is right; but the shift, undone last, is seen through the inverse block",
        ),
        (torch.cat([undone, shift], 2), "the block is right, but nothing undoes the shift"),
        (torch.cat([undone, undone @ shift], 2), "the sign of the shift: what was added must be taken away"),
        (
            torch.cat([block.mT, -block.mT @ shift], 2),
            "the transpose is the inverse of a rotation only; these thetas also scale and shear",
        ),
        (-theta, "the negative of a map is not its inverse"),
    ]
    expect_right(answer(theta), torch.cat([undone, -undone @ shift], 2), "the inverse", mistakes)
    return "A transformer that finds this theta undoes the distortion."


@exercise("02-6")
def turn_about(answer: Callable[..., Any]) -> str:
    for row, column, angle, size in ((13, 20, 90.0, 28), (5, 9, 30.0, 28), (0, 0, -45.0, 15)):
        fixed = torch.tensor([(2 * column + 1) / size - 1, (2 * row + 1) / size - 1])
        aligned = torch.tensor([2 * column / (size - 1) - 1, 2 * row / (size - 1) - 1])
        mistakes = [
            (
                _turn(-angle, fixed),
                "it turns clockwise: theta turns the grid, the picture goes the other way",
            ),
            (
                _turn(angle, torch.zeros(2)),
                "it turns about the centre; the given pixel should stay where it is",
            ),
            (_turn(angle, fixed.flip(0)), "row and column are swapped: the column gives x, the row gives y"),
            (_turn(angle, fixed - 1 / size), "it turns about the pixel's corner: add half a pixel, 1 / size"),
            (_turn(angle, aligned), "the pixel's place is that of align_corners=True"),
            (_turn(angle, -fixed), "the shift has the wrong sign"),
        ]
        given = _matrix(answer(row, column, angle, size))
        expect_right(given, _turn(angle, fixed), f"turn_about{(row, column, angle, size)}", mistakes)
    return "The pixel under the pin stays; everything else turns."


def _turn(angle: float, fixed: Tensor) -> Tensor:
    """The theta that turns the picture counter-clockwise about a normalised place."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    block = torch.tensor([[cosine, -sine], [sine, cosine]])
    return torch.cat([block, (fixed - block @ fixed)[:, None]], 1)


def _matrix(answer: Any) -> Tensor:
    try:
        theta = torch.as_tensor(answer, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"theta should be a 2 × 3 list or tensor; got {type(answer).__name__}") from None
    expect(theta.shape == (2, 3), f"theta should have 2 rows and 3 columns; got shape {tuple(theta.shape)}")
    return theta
