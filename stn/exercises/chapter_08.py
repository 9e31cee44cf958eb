"""Checks of chapter 08's exercises: fusing grid and sampler."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise, expect
from stn.measured import allocations


@exercise("08-1")
def fused_and_with_a_grid(answer: Any) -> str:
    mistakes = [
        ([70, 10], "first fused, then with a grid"),
        ([20, 80], "a number of float16 has 2 bytes, read and written"),
        ([10, 50], "a place in a volume has three coordinates"),
        ([10, 40], "the grid stays float32, 4 bytes a number"),
        ([4, 28], "that is the forward pass alone"),
        ([6, 42], "that is the backward pass alone"),
        ([10, 46], "the gradient of the grid is moved as well, written once and read once"),
        ([10, 58], "the backward pass reads the grid once more"),
    ]
    expect_right(answer, [10, 70], "[bytes fused, bytes with a grid]", mistakes)
    return "Seven times: nowhere does a grid weigh more than on a scan."


@exercise("08-2")
def sectors_of_pixel(answer: Callable[..., Any]) -> str:
    for channels, size in ((1, (9, 13)), (3, (10, 10)), (6, (5, 7)), (8, (4, 5)), (32, (3, 3)), (5, (1, 1))):
        for n in range(size[0]):
            for m in range(size[1]):
                first, last = (answer(n, m, channels, size, layout) for layout in (False, True))
                where = f"for pixel ({n}, {m}) of an image {size} of {channels} channels"
                mistakes = [
                    (_sectors(n, m, channels, size, True), "that is the other layout"),
                    (
                        channels,
                        f"the planes are small {where}: two channels of the pixel can share a sector",
                    ),
                    (1, f"{where} 1 is too few: each channel is {size[0] * size[1]} numbers further on"),
                ]
                right = _sectors(n, m, channels, size, False)
                expect_right(first, right, f"the number {where}, channels-first,", mistakes)
                mistakes = [
                    (_sectors(n, m, channels, size, False), "that is the other layout"),
                    (
                        -(-channels // 8),
                        f"the pixel need not begin on a sector; {where} it lies across a border",
                    ),
                    (_sectors(m, n, channels, (size[1], size[0]), True), "n is the row, and m the column"),
                ]
                right = _sectors(n, m, channels, size, True)
                expect_right(last, right, f"the number {where}, channels-last,", mistakes)
    return "Side by side, 32 channels are four sectors; in planes of their own they are 32."


@exercise("08-3", needs_triton=True)
def attention_sample(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(3)
    picture = torch.rand(3, 2, 11, 17, generator=generator).to(_device())
    parameters = torch.tensor([[0.6, 0.3, -0.2], [1.3, -0.1, 0.4], [0.9, 0.5, 0.1]], device=_device())
    for size in ((11, 17), (7, 20)):
        mistakes = [
            (_attended(picture, parameters[:, [0, 2, 1]], size), "t_x goes across, to a, and t_y down, to b"),
            (
                _attended(picture, parameters[:1].expand(3, 3), size),
                "every image gets the first parameters; those of transform m begin 3 * m numbers on",
            ),
            (
                _attended(picture, parameters * parameters.new_tensor([1, 0, 0]), size),
                "the shift is missing",
            ),
            (
                _attended(
                    picture, torch.cat([parameters[:, :1], parameters[:, :1] * parameters[:, 1:]], 1), size
                ),
                "s scales the pixel, not the shift",
            ),
            (
                _attended(picture, parameters * parameters.new_tensor([1, 2 / 17, 2 / 11]), size),
                "the shift is normalised: in pixels it is t times the half extent",
            ),
        ]
        right = _attended(picture, parameters, size)
        expect_right(answer(picture, parameters, size), right, f"the output of size {size}", mistakes)
    identity = torch.tensor([[1.0, 0.0, 0.0]], device=_device())
    for length in range(2, 24):
        picture = torch.rand(1, 1, 3, length, generator=generator).to(_device())
        same = torch.equal(answer(picture, identity, (3, length)), picture)
        expect(same, f"close, but (1, 0, 0) does not return a picture of (3, {length}) exactly")
    return "Half of theta's numbers, and none of the sampler had to be touched."


@exercise("08-4", needs_triton=True)
def lens_sample(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(4)
    picture = torch.rand(3, 2, 13, 18, generator=generator).to(_device())
    k = torch.tensor([[0.3], [-0.2], [0.0]], device=_device())
    for size in ((13, 18), (9, 14)):
        mistakes = [
            (_through_lens(picture, k[:1].expand(3, 1), size), "every image gets the first k; m has its own"),
            (_through_lens(picture, -k, size), "the sign of k is the other one"),
            (_through_lens(picture, k, size, power=1), "that is the distance; its square is asked for"),
            (_through_lens(picture, 0 * k, size), "k seems not to be used"),
        ]
        right = _through_lens(picture, k, size)
        expect_right(answer(picture, k, size), right, f"the output of size {size}", mistakes)
    return "A map that no matrix can say, and the kernel did not change."


@exercise("08-5", needs_triton=True)
def mismatch(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(4)
    theta = (torch.eye(2, 3) + 0.3 * torch.randn(3, 2, 3, generator=generator)).to(_device())
    picture = torch.rand(3, 2, 20, 30, generator=generator).to(_device())
    target = torch.rand(3, 2, 70, 90, generator=generator).to(_device())
    grid = F.affine_grid(theta, [3, 1, 70, 90], align_corners=False)
    difference = F.grid_sample(picture, grid, align_corners=False) - target
    given, taken = allocations(lambda: answer(picture, theta, target))
    mistakes = [
        (difference.square().sum((0, 1, 2, 3)), "one number for each image, not for all of them"),
        (difference.square().mean((1, 2, 3)), "that is the mean, not the sum"),
        (difference.square()[:, 0].sum((1, 2)), "that is the first channel alone"),
        (difference.sum((1, 2, 3)), "the differences are not squared"),
        (difference.sum(1).square().sum((1, 2)), "square each channel's difference before you add it"),
    ]
    expect_right(given, difference.square().sum((1, 2, 3)), "the mismatch", mistakes, tolerance=0.05)
    written = 4 * target.numel()
    allowed = written / 10
    expect(
        sum(taken) < allowed,
        f"the values are right, but {sum(taken):,} bytes were allocated; V itself would be {written:,}",
    )
    return "The sampled image was never in memory."


def _device() -> str:
    """Where Triton runs: on a GPU, or interpreted."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _sectors(n: int, m: int, channels: int, size: tuple[int, int], channels_last: bool) -> int:
    height, width = size
    shape = (height, width, channels) if channels_last else (channels, height, width)
    numbers = torch.arange(channels * height * width).reshape(shape)
    numbers = numbers if channels_last else numbers.movedim(0, -1)
    return len((numbers[n, m] // 8).unique())


def _attended(picture: Tensor, parameters: Tensor, size: tuple[int, int]) -> Tensor:
    """Equation 2 through PyTorch's two functions."""
    s, t_x, t_y = parameters.unbind(1)
    nothing = torch.zeros_like(s)
    theta = torch.stack([s, nothing, t_x, nothing, s, t_y], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, [len(picture), 1, *size], align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False)


def _through_lens(picture: Tensor, k: Tensor, size: tuple[int, int], power: int = 2) -> Tensor:
    identity = torch.eye(2, 3).to(picture).expand(len(picture), 2, 3)
    grid = F.affine_grid(identity, [len(picture), 1, *size], align_corners=False)
    stretch = 1 + k[:, None, None] * grid.norm(dim=3, keepdim=True) ** power
    return F.grid_sample(picture, stretch * grid, align_corners=False)
