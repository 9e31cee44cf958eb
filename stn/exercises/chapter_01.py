"""Checks of chapter 01's exercises: why spatial transformers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from stn.data import digits, rotated
from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise, expect
from stn_kernels import affine_sample

PARTS = ["localisation network", "grid generator", "sampler"]


@exercise("01-1")
def parts(answer: Any) -> str:
    expect(isinstance(answer, (list, tuple)), f"parts should be a list; got {type(answer).__name__}")
    given = [" ".join(str(part).lower().replace("localization", "localisation").split()) for part in answer]
    expect(len(given) == 3, f"there are three parts; got {len(given)}")
    for part in given:
        expect(part in PARTS, f"{part!r} is not the name of a part; the figure in section 1.7 has all three")
    expect(sorted(given) == sorted(PARTS), "one part is named twice")
    expect(given[0] == PARTS[0], "first somebody must decide where to look: which part predicts theta?")
    expect(given == PARTS, "the sampler reads the input at the grid's places, so the grid comes before it")
    return "The input meets the first and, untouched, the last."


@exercise("01-2")
def readings_per_digit(answer: Any) -> str:
    mistakes = [
        (12 * 75, "from -90 to 90 in steps of 15 there are 12 steps, and 13 angles"),
        (13 * 3 * 5, "a shift across and a shift down are independent: 5 of the one for each of the other"),
        (13 * 3 * 10, "5 shifts across and 5 down make 25 places, not 10"),
        (13 + 3 + 5 + 5, "each angle has to be tried in each size at each place: multiply"),
    ]
    expect_right(answer, 13 * 75, "the number of readings", mistakes)
    return "And a slant would multiply it once more."


@exercise("01-3")
def share_removed(answer: Any) -> str:
    mistakes = [
        (0.8 / 5.2, "that is the share that is left"),
        (5.2 / 0.8, "that is the factor by which errors fall; which share of them is gone?"),
        (5.2 - 0.8, "those are percentage points; of 5.2, they are which share?"),
        (100 * 4.4 / 5.2, "that is per cent; the share is a number between 0 and 1"),
        (85.0, "that is per cent; the share is a number between 0 and 1"),
        (0.9 / 2.1, "that is R; the question is for RTS"),
        (0.3 / 0.8, "that is the CNN's share; the question is for the FCN's"),
    ]
    expect_right(answer, 4.4 / 5.2, "the share", mistakes, tolerance=0.006)
    return "On R it is less than half; the harder the poses, the more there is to undo."


@exercise("01-4")
def tolerated(answer: Callable[..., Any]) -> str:
    pools = range(5)
    mistakes = [
        ([2**k for k in pools], "that is the first shift that does change the row; one less does not"),
        (list(pools), "each pool doubles the pixels that one number stands for"),
        ([2 * k for k in pools], "each pool doubles the pixels that one number stands for"),
        ([2 * k - 1 for k in pools], "each pool doubles the pixels that one number stands for"),
        ([max(2 * k - 1, 0) for k in pools], "each pool doubles the pixels that one number stands for"),
        ([2 ** (k - 1) for k in pools], "after one pool a number stands for 2 pixels, not for 1"),
        ([0] * 5, "one pool tolerates a move from the first of its pixels to the second"),
    ]
    expect_right([answer(k) for k in pools], [2**k - 1 for k in pools], "tolerated(0 to 4)", mistakes)
    return "At worst, from the last pixel of its pool, it tolerates none."


@exercise("01-5")
def error_on_R(answer: Callable[..., Any]) -> str:
    angles = torch.tensor([-90.0, -60.0, 0.0, 10.0, 30.0, 90.0])
    errors = torch.tensor([0.90, 0.70, 0.05, 0.10, 0.40, 0.85])
    widths, total = angles.diff(), 180.0
    right = torch.trapezoid(errors, angles) / total
    mistakes = [
        (errors.mean(), "a plain mean counts each measured angle alike, however far the next one is"),
        (right * total, "that is the area under the curve; divide by the width of the range"),
        ((widths * errors[:-1]).sum() / total, "between two angles the error is not that of the left one"),
        ((widths * errors[1:]).sum() / total, "between two angles the error is not that of the right one"),
        (right * 2, "the range is 180 degrees wide, from the first angle to the last"),
    ]
    expect_right(answer(angles, errors), right, "the predicted error", mistakes)
    return (
        "From the curve of section 1.2 it predicts the error that section measured on R to within two points."
    )


@exercise("01-6")
def nearly_upright(answer: Callable[..., Any]) -> str:
    images, pose = rotated(digits("test")[0][:6], generator=torch.Generator().manual_seed(2))
    for off in (0.0, 20.0):

        def turned_by(angle: torch.Tensor) -> torch.Tensor:
            return affine_sample(images, replace(pose, angle=angle).matrix(), (28, 28))

        mistakes = [
            (turned_by(pose.angle + off), "it turns the digits once more: use inverse_matrix()"),
            (turned_by(-pose.angle + off), "the sign of off: it believes the angle larger than it is"),
            (turned_by(-pose.angle), "it knows the pose too well: off is not used"),
            (images, "it leaves the digits as they are"),
        ]
        right = turned_by(-pose.angle - off)
        expect_right(answer(images, pose, off), right, "the digits", mistakes, tolerance=1e-3)
    return "Five degrees off cost its network next to nothing; fifteen more than double the errors."
