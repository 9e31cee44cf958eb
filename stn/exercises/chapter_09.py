"""Checks of chapter 09's exercises: the backward kernels."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect

MAY_DIFFER = {
    "float32": "a float32 sum is rounded at every step, and the steps are in the order of the programs",
    "float16": "the sum is float32, rounded at every step: that the shares are float16 changes nothing",
}
THE_SAME = {
    "integers": "whole numbers are added exactly, in any order; the rounding came before",
    "rows": "rows are added in the order of their places, whoever wrote them first",
    "gather": "each sum is one pixel's, made in one loop, whatever other programs do",
}


@exercise("09-1")
def depend_on_the_order(answer: Any) -> str:
    expect(
        isinstance(answer, (list, tuple, set)),
        f"depend_on_the_order should be a list of names; got {type(answer).__name__}",
    )
    given = {str(name) for name in answer}
    for name in sorted(given - set(MAY_DIFFER) - set(THE_SAME)):
        raise Wrong(f"there is no {name!r} in the list")
    for name in sorted(given & set(THE_SAME)):
        raise Wrong(f"{name!r} does not depend on the order: {THE_SAME[name]}")
    for name in sorted(set(MAY_DIFFER) - given):
        raise Wrong(f"one is missing: {MAY_DIFFER[name]}")
    return "Atomics alone do no harm, nor floating point alone: it takes both."


@exercise("09-2")
def bits_of_32(answer: Any) -> str:
    mistakes = [
        ([52, 46], "those are the bits of 64-bit integers; here sums may reach 2^30, not 2^62"),
        ([20.386, 14.386], "a bit is a whole one: round the logarithm up"),
        ([21, 15], "one too many: round the logarithm up, and keep one bit for the rounding of weights"),
        ([22, 16], "a sign takes one bit, and one more is kept for rounding: 30, not 32"),
        ([25, 22], "that is the logarithm of one side; count all output pixels"),
        ([10, 16], "those are the bits that the pixels take; the largest gradient has the others"),
    ]
    expect_right(answer, [20, 14], "[bits at 28 × 28, bits at 224 × 224]", mistakes, tolerance=1e-2)
    return "Fewer than the 24 of a float32, and the larger the output, the fewer: so 64 bits."


@exercise("09-3")
def tiles_and_bytes(answer: Any) -> str:
    pixels, row = 512 * 512, 126 * 4
    mistakes = [
        ([4, math.ceil(2048 / 4) * row], "4 tiles stay above a tenth, by little; round up"),
        ([1, 2048 * row], "with one tile to a row, rows take 49 % of a grid"),
        ([5, 410 * 126], "a float32 has 4 bytes"),
        ([5, 2048 // 5 * row], "2048 tiles make 409 runs of 5 and one of 3, which has a row as well"),
        ([5, pixels * 8 // 10], "that is the bound, a tenth of the grid; count the rows"),
        ([5, 2048 * row], "one row for each run, not for each tile"),
        ([10, 205 * row], "a grid has two numbers for each pixel, 8 bytes"),
    ]
    expect_right(answer, [5, 410 * row], "[tiles of a run, bytes of all rows]", mistakes)
    return "Beside a grid of 2 MB that nobody stores: 206,640 bytes, 9.9 % of it."


@exercise("09-4")
def row_interval(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(9)
    empty = 0
    for _ in range(200):
        M = torch.randn(2, 2, generator=generator, dtype=torch.float64)
        M += 0.2 * M.sign()  # no entry near 0
        d = 2 * torch.randn(2, generator=generator, dtype=torch.float64)
        y = round(3 * torch.randn((), generator=generator).item())
        low, high = _row_interval(M, d, y)
        given = answer(M, d, y)
        if low >= high:
            empty += 1
            expect(
                isinstance(given, tuple | list) and len(given) == 2 and bool(given[0] >= given[1]),
                f"in row {y} nobody reads the pixel, so low should not be below high; got {_shown(given)}",
            )
            continue
        expect_right(given, [low, high], "(low, high)", list(_row_mistakes(M, d, y)), tolerance=1e-6)
    if not 20 <= empty <= 180:
        raise AssertionError("the cases should be of both kinds")
    return "Between the two ends everybody reads: nothing is left to try."


@exercise("09-5", needs_triton=True)
def collect(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(4)
    for height, width, k in ((3, 4, 2), (5, 3, 3), (2, 7, 1), (9, 11, 4)):
        values = torch.randn(k * height, k * width, generator=generator).to(_device())
        blocks = values.view(height, k, width, k)
        right = blocks.sum((1, 3))
        what = f"dL/dU of {height} × {width}, k = {k},"
        mistakes = [
            (blocks.mean((1, 3)), "that is the mean of each block; a gradient is the sum over all who read"),
            (blocks[:, 0, :, 0], "that is one output pixel of each block; all k × k read the pixel"),
            (blocks[:, 0].sum(-1), "those are the sums of one row of each block"),
            (blocks[:, :, :, 0].sum(1), "those are the sums of one column of each block"),
        ]
        # Freed, it is likely to be what the answer allocates: whoever relies on zeroes is found out.
        poison = torch.full((height, width), math.nan, device=values.device)
        del poison
        expect_right(answer(values, k), right, what, mistakes, tolerance=1e-4)
    return "No zeroes, no atomics, and the same bits in any order of programs."


def _device() -> str:
    """Where Triton runs: on a GPU, or interpreted."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _row_interval(M: Tensor, d: Tensor, y: float) -> tuple[float, float]:
    rest = d - M[:, 1] * y
    ends = torch.stack([(rest - 1) / M[:, 0], (rest + 1) / M[:, 0]])
    return ends.amin(0).max().item(), ends.amax(0).min().item()


def _row_mistakes(M: Tensor, d: Tensor, y: float) -> list[tuple[list[float], str]]:
    rest = d - M[:, 1] * y
    one, other = (rest - 1) / M[:, 0], (rest + 1) / M[:, 0]
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    inverse = torch.linalg.inv(M)
    middle, half = (inverse @ d)[0].item(), inverse[0].abs().sum().item()
    return [
        ([one.max().item(), other.min().item()], "where M's entry is negative, dividing swaps the two ends"),
        ([low[0].item(), high[0].item()], "that is the first component's interval; the second has one, too"),
        ([low[1].item(), high[1].item()], "that is the second component's interval; the first has one, too"),
        (
            [low.min().item(), high.max().item()],
            "both have to hold: the intervals' intersection, not their union",
        ),
        ([middle - half, middle + half], "that is the box, which is the same in every row"),
    ]


def _shown(given: Any) -> str:
    try:
        return ", ".join(f"{float(number):.3g}" for number in given)
    except (TypeError, ValueError):
        return type(given).__name__
