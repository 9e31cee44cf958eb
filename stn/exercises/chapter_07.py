"""Checks of chapter 07's exercises: a first Triton kernel."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.exercises.mistakes import expect_right
from stn.exercises.registry import exercise, expect


@exercise("07-1")
def programs_and_idle_lanes(answer: Any) -> str:
    exact = "blocks do not run on from image to image: each image has 4 programs of its own"
    mistakes = [
        ([4, 284], "that is one image; there are five"),
        ([15, 0], "1764 pixels do not fit into 3 blocks of 512; round up"),
        ([60, 60 * 512 - 3 * 5 * 1764], "channels are a loop inside a program, not programs of their own"),
        ([18, 18 * 512 - 5 * 1764], exact),
        ([20, 284], "those are the idle lanes of one image; there are five"),
    ]
    expect_right(answer, [20, 1420], "[programs, idle lanes]", mistakes)
    return "One lane in seven is idle; with BLOCK=256 there were 28 idle lanes an image instead of 284."


@exercise("07-2")
def bytes_unfused_and_fused(answer: Any) -> str:
    mistakes = [
        ([40, 24], "a number of float16 has 2 bytes, in and out"),
        ([20, 12], "the grid stays float32: two numbers of 4 bytes, written once and read once"),
        ([12, 28], "first the two kernels, then the fused one"),
        ([46, 30], "four taps are asked for, but a cache answers three of them"),
        ([22, 6], "the pictures are both read and written"),
    ]
    expect_right(answer, [28, 12], "[bytes in two kernels, bytes fused]", mistakes)
    return "The smaller the pixels, the more the grid weighs: a factor of 2.3, where float32 had 1.7."


@exercise("07-3", needs_triton=True)
def strided_copy(answer: Callable[..., Any]) -> str:
    # All views lie well inside one tensor, so that a kernel that reads elsewhere reads numbers.
    memory = torch.arange(16384.0, device=_device()).reshape(256, 64)
    views = {
        "a contiguous picture": memory[20:27],
        "a crop": memory[20:33, 5:24],
        "a transposed picture": memory[20:33, 5:24].T,
        "every second row": memory[10:32:2, 3:10],
        "one row, repeated": memory[30:31, 2:40].expand(5, 38),
    }
    for name, view in views.items():
        start = view.storage_offset()
        stride_y, stride_x = view.stride()
        as_if_contiguous = memory.as_strided(view.shape, (view.shape[1], 1), start)
        swapped = memory.as_strided(view.shape, (stride_x, stride_y), start)
        mistakes = [
            (as_if_contiguous, f"of {name} it reads what lies next in memory; use both strides"),
            (
                memory.as_strided(view.shape, (stride_y, 1), start),
                "the stride of the columns is not always 1",
            ),
            (swapped, "the strides are swapped: stride_y leads to the next row"),
            (view.T, "the output is transposed"),
        ]
        given = answer(view)
        expect_right(given, view, f"the copy of {name}", mistakes)
        expect(given.is_contiguous(), f"the copy of {name} should be contiguous")
        expect(given.data_ptr() != view.data_ptr(), "the output should be new memory")
    return "Transposed, repeated or cropped: to the kernel it is all two strides."


@exercise("07-4", needs_triton=True)
def exact_sample(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(4)
    noise = (torch.eye(2, 3) + 0.4 * torch.randn(3, 2, 3, generator=generator)).to(_device())
    picture = torch.rand(3, 2, 11, 17, generator=generator).to(_device())
    for size in ((11, 17), (7, 20)):
        mistakes = [
            (_sampled(picture, noise, size, align_corners=True), "that is align_corners=True"),
            (_sampled(picture, _without_aspect(noise, size), size), _ASPECT),
        ]
        right = _sampled(picture, noise, size)
        expect_right(answer(picture, noise, size), right, f"the output of size {size}", mistakes)
    identity = torch.eye(2, 3, device=_device())[None]
    for length in range(2, 34):
        for shape in ((3, length), (length, 3)):
            picture = torch.rand(1, 1, *shape, generator=generator).to(_device())
            same = torch.equal(answer(picture, identity, shape), picture)
            expect(same, f"close, but the identity does not return a picture of {shape} exactly")
    return "What was divided by W' and multiplied by W is now multiplied by exactly 1."


@exercise("07-5", needs_triton=True)
def bicubic_sample(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(5)
    theta = (torch.eye(2, 3) + 0.3 * torch.randn(2, 2, 3, generator=generator)).to(_device())
    picture = torch.rand(2, 2, 9, 12, generator=generator).to(_device())
    mistakes = [
        (_sampled(picture, theta, (8, 10)), "that is the bilinear sampler"),
        (
            _four_taps(picture, theta, (8, 10), shift=1),
            "floor(a) is the second of the four taps, not the first",
        ),
        (_four_taps(picture, theta, (8, 10), A=-0.5), "the constant A is -3/4 here; that is -1/2"),
    ]
    right = _sampled(picture, theta, (8, 10), mode="bicubic")
    expect_right(answer(picture, theta, (8, 10)), right, "the output", mistakes)
    return "Two short functions, and sixteen taps."


@exercise("07-6", needs_triton=True)
def projective_sample(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(6)
    picture = torch.rand(3, 2, 9, 12, generator=generator).to(_device())
    theta = torch.eye(3).repeat(3, 1, 1)
    theta[:, :2] += 0.2 * torch.randn(3, 2, 3, generator=generator)
    theta[1:, 2] += 0.2 * torch.rand(2, 3, generator=generator)  # the first is affine
    theta = theta.to(_device())
    size = (8, 10)
    u, v, w = _homogeneous(theta, size)
    places = torch.stack([u / w, v / w], dim=-1)
    only_first = _homogeneous(theta[:1].expand(3, 3, 3), size)
    mistakes = [
        (_at(picture, torch.stack([u, v], dim=-1)), "u and v have to be divided by w"),
        (_at(picture, torch.stack([v / w, u / w], dim=-1)), "u goes across, to a, and v down, to b"),
        (
            _at(picture, torch.stack([only_first[0], only_first[1]], dim=-1) / only_first[2][..., None]),
            "every image gets the first theta; that of image `item` begins 9 * item numbers on",
        ),
    ]
    expect_right(answer(picture, theta, size), _at(picture, places), "the output", mistakes)
    return "It bends no lines, but parallel ones may now meet: one more row, and one division."


_ASPECT = (
    "with other sizes it is off: t12 takes a step down in the output, of 2 / H', to one across in the input"
)


def _device() -> str:
    """Where Triton runs: on a GPU, or interpreted."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _homogeneous(theta: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """(u, v, w) = theta (x, y, 1) for every output pixel, each (N, H', W')."""
    y, x = ((2 * torch.arange(length, device=theta.device) + 1) / length - 1 for length in size)
    points = torch.stack([x.expand(size), y[:, None].expand(size), torch.ones(size, device=theta.device)])
    return torch.einsum("nij, jyx -> inyx", theta, points).unbind()


def _at(picture: Tensor, places: Tensor, mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    return F.grid_sample(picture, places, mode=mode, align_corners=align_corners)


def _sampled(
    picture: Tensor, theta: Tensor, size: tuple[int, int], mode: str = "bilinear", align_corners: bool = False
) -> Tensor:
    places = F.affine_grid(theta, [len(picture), 1, *size], align_corners=align_corners)
    return _at(picture, places, mode, align_corners)


def _without_aspect(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """The theta of who scales a whole row alike, by W / W' or by H / H'."""
    wrong = theta.clone()
    wrong[:, 0, 1] *= size[0] / size[1]
    wrong[:, 1, 0] *= size[1] / size[0]
    return wrong


def _four_taps(
    picture: Tensor, theta: Tensor, size: tuple[int, int], shift: int = 0, A: float = -0.75
) -> Tensor:
    """Keys' kernel with the constant A on four taps each way, the first `shift` pixels too late."""
    height, width = picture.shape[2:]
    places = F.affine_grid(theta, [len(picture), 1, *size], align_corners=False)
    weights = []
    for x, length in ((places[..., 0], width), (places[..., 1], height)):
        a = ((x + 1) * length - 1) / 2
        index = torch.arange(length, device=a.device)
        t = (a[..., None] - index).abs()
        near = (A + 2) * t**3 - (A + 3) * t**2 + 1
        far = A * (t**3 - 5 * t**2 + 8 * t - 4)
        first = a.floor()[..., None] - 1 + shift
        visited = (index >= first) & (index < first + 4)
        weights.append(torch.where(t <= 1, near, far) * visited)
    return torch.einsum("ncyx, nijx, nijy -> ncij", picture, *weights)
