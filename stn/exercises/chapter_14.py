"""Checks of chapter 14's exercises: aliasing, and gradients that see further."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stn.data import digits
from stn.exercises.mistakes import expect_right
from stn.exercises.registry import Wrong, exercise, expect
from stn.transforms import Affine, Attention, Transform, Translation

HOME_FOR_ALL = {"one pixel", "tent", "binomial", "pointed"}
REPELS = {
    "box": "its spectrum is 1 + 2 cos 2πf, -1 for the finest stripes, f = 1/2",
    "flat": "its spectrum is 1.5 + 2 cos 2πf, -0.5 for the finest stripes, f = 1/2",
}


@exercise("14-1")
def shares_read(answer: Any) -> str:
    mistakes = [
        ([1, 4 / 9, 1 / 9, 4 / 49], "where s is odd the places lie on pixels: three of four weights are 0"),
        ([1 / 4, 1 / 9, 1 / 36, 1 / 49], "where s is even the places lie between pixels: all four are read"),
        ([1, 1 / 3, 1 / 3, 1 / 7], "that is along one axis; the share of pixels is its square"),
        ([0, 8 / 9, 8 / 9, 48 / 49], "those are the shares that are not read"),
        ([1, 1, 1, 1], "a bilinear sample reads four pixels at most, however far the next sample is away"),
    ]
    expect_right(answer, [1, 1 / 9, 1 / 9, 1 / 49], "the list of shares", mistakes, tolerance=1e-3)
    return "By 3 and by 6 the same: half as many places each way, and each reads two pixels each way for one."


@exercise("14-2")
def periods(answer: Any) -> str:
    mistakes = [
        (
            [1.2, 0.8],
            "a whole period from one kept pixel to the next is not seen: at most a half shows",
        ),
        ([0.2, 0.8], "0.8 forward or 0.2 back is the same to pixels: what shows is at most a half"),
        ([0.2, -0.2], "a cosine that runs backwards looks like one that runs forwards"),
        ([0.3, 0.2], "from one kept pixel to the next are four pixels"),
        ([0.075, 0.05], "from one kept pixel to the next are four pixels: four times as many periods"),
        ([0.05, 0.05], "that is for each pixel of the row; for each kept pixel is asked for"),
        ([0.3, 0.3], "0.3 · 4 = 1.2, of which the whole period is not seen"),
    ]
    expect_right(answer, [0.2, 0.2], "the list of periods", mistakes)
    return "Two rows, and the kept pixels cannot tell which it was."


@exercise("14-3")
def footprint(answer: Any) -> str:
    mistakes = [
        ([4, 2, 4.6], "those are the lengths of J's rows; one step in the output is a column"),
        ([3, 2, 4.6], "rounded up: not more than a pixel from sample to sample"),
        ([math.hypot(3, 0.5), math.hypot(2, 1.2), 4.6], "n is a whole number: round up"),
        ([3, 4, 4.6], "the two are swapped: J_x, the first column, is a step to the right"),
        ([4, 3, 2.6], "the determinant is 3 · 1.2 - (-2) · 0.5"),
        ([4, 3, 12], "12 samples, but the area is |det J|"),
        ([4, 3, math.hypot(3, 0.5) * math.hypot(2, 1.2)], "a parallelogram has |det J|; that is a rectangle"),
        ([4, 3, 3.6], "the area is the determinant's magnitude, both products of it"),
        ([3, 1, 4.6], "the whole length of a column counts, not one entry of it"),
        ([3, 2, 3.6], "the whole length of a column counts, not one entry of it"),
    ]
    expect_right(answer, [4, 3, 4.6], "[n_x, n_y, area]", mistakes, tolerance=1e-3)
    return "12 samples for 4.6 pixels: a slanted footprint pays for its corners."


@exercise("14-4")
def footprint_mean(answer: Callable[..., Any]) -> str:
    image = torch.rand(12, 12, generator=torch.Generator().manual_seed(4))
    straight, slanted = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.5, -1.2], [0.8, 1.9]])
    for J in (straight, slanted, 0.5 * torch.eye(2)):
        n_x, n_y = (max(1, math.ceil(length)) for length in J.norm(dim=0).tolist())
        place = torch.tensor([5.3, 6.1])
        right = _mean(image, place, J, _middles(n_x), _middles(n_y))
        mistakes = [
            (right * n_x * n_y, "that is the sum; divide by n_x n_y"),
            (_mean(image, place, J, _middles(1), _middles(1)), "that is the sample in the middle alone"),
            (_mean(image, place, J.T, _middles(n_x), _middles(n_y)), "T(p) + J d: J's columns, not its rows"),
            (
                _mean(image, place, J, _middles(n_y), _middles(n_x)),
                "n_x belongs to d's first coordinate, n_y to the second",
            ),
            (
                _mean(image, place, J, _ends(n_x), _ends(n_y)),
                "those samples reach the border of the footprint, which belongs half to the next pixel",
            ),
            (
                _mean(image, place, J, _middles(n_x) - 0.5 / n_x, _middles(n_y) - 0.5 / n_y),
                "without the half in (i + 1/2) / n all samples lie up and left of where they should be",
            ),
            (
                _mean(image, place, J, _middles(n_x) + 0.5, _middles(n_y) + 0.5),
                "d goes from -1/2 to 1/2: T(p) is the footprint's centre, not its corner",
            ),
            (
                _mean(image, place.flip(0), J.flip(0), _middles(n_x), _middles(n_y)),
                "a goes across and is the first coordinate of place and J, b goes down",
            ),
            (
                _mean(image, place, J, _middles(max(1, n_x - 1)), _middles(max(1, n_y - 1))),
                "round up: not more than a pixel from sample to sample",
            ),
        ]  # fmt: skip
        expect_right(answer(image, place, J), right, f"the mean for J = {J.tolist()}", mistakes)
    return "This is one output pixel of antialias=True."


@exercise("14-5")
def sample_and_pool(answer: Callable[..., Any]) -> str:
    image = torch.rand(2, 1, 30, 30, generator=torch.Generator().manual_seed(5))
    for transform, theta in (
        (Attention(), torch.tensor([[0.9, 0.05, 0.0], [0.7, 0.0, -0.2]])),
        (Affine(), torch.tensor([[0.8, 0.3, 0.0, -0.3, 0.8, 0.1]]).repeat(2, 1)),
    ):
        for size, times in (((6, 8), 2), ((5, 4), 3)):
            fine = transform.sample(image, theta, (size[0] * times, size[1] * times))
            right = F.avg_pool2d(fine, times)
            smaller = F.avg_pool2d(image, times)
            mistakes = [
                (transform.sample(image, theta, size), "that is plain sampling"),
                (fine, "sampled, but not pooled"),
                (F.max_pool2d(fine, times), "the mean of times × times, not the maximum"),
                (fine[..., ::times, ::times], "those are some of the samples; take the mean of all"),
                (transform.sample(smaller, theta, size), "the image is pooled first; pool what was sampled"),
                (F.interpolate(fine, size), "those are some of the samples; take the mean of all"),
            ]
            given = answer(transform, image, theta, size, times)
            swapped = (*right.shape[:2], size[1], size[0])
            if isinstance(given, Tensor) and tuple(given.shape) == swapped:
                raise Wrong("size is (H', W'), height before width")
            expect_right(given, right, "the pooled output", mistakes)
    return "With align_corners=True the finer pixels do not lie around the coarser ones."


@exercise("14-6")
def home_for_all(answer: Any) -> str:
    expect(
        isinstance(answer, (list, tuple, set)),
        f"home_for_all should be a list of names; got {type(answer).__name__}",
    )
    given = {str(name) for name in answer}
    for name in sorted(given - HOME_FOR_ALL - set(REPELS)):
        raise Wrong(f"there is no {name!r} in the list")
    for name in sorted(given & set(REPELS)):
        raise Wrong(f"not for every image with {name!r}: {REPELS[name]}")
    expect("one pixel" in given, "'one pixel' is the plain gradient: its spectrum is 1, never negative")
    expect("tent" in given, "the spectrum of the 'tent' is 2 + 2 cos 2πf, which is never negative")
    expect("pointed" in given, "the spectrum of 'pointed' is 3 + 2 cos 2πf, 1 at the least")
    expect("binomial" in given, "'binomial' is the tent blurred by itself: the tent's spectrum, squared")
    return "Home is the highest place for plain gradients too. That says nothing of how far they see it."


@exercise("14-7")
def plane_slope(answer: Callable[..., Any]) -> str:
    generator = torch.Generator().manual_seed(7)
    for noise in (0.0, 0.3):
        offsets = 2 * torch.rand(9, 2, generator=generator, dtype=torch.float64) - 0.7
        values = 1.5 + offsets @ torch.tensor([0.8, -0.3], dtype=torch.float64)
        values = values + noise * torch.randn(9, generator=generator, dtype=torch.float64)
        ones = torch.cat([offsets, torch.ones(9, 1, dtype=torch.float64)], 1)
        plane = torch.linalg.lstsq(ones, values[:, None]).solution[:, 0]
        right = plane[:2]
        through_zero = torch.linalg.lstsq(offsets, values[:, None]).solution[:, 0]
        centred = torch.linalg.lstsq(offsets, (values - values.mean())[:, None]).solution[:, 0]
        mistakes = [
            (right.flip(0), "the two are swapped: across first"),
            (-right, "the sign: a plane that rises to the right has a positive slope across"),
            (plane, "that is the whole plane; its height is not asked for"),
            (plane[[2, 0, 1]], "that is the whole plane; its height is not asked for"),
            (right[:, None], "a column; return a tensor of shape (2,)"),
            (through_zero, "that plane goes through 0; it needs a height too, a third unknown"),
            (centred, "the mean is taken from the values but not from the offsets; take it from both, or "
             "give the plane a height"),
        ]  # fmt: skip
        given = answer(offsets, values)
        expect_right(given, right, "the slope", mistakes, tolerance=1e-6)
    return "Random points for a blur: the farther they are spread, the farther it sees."


@exercise("14-8")
def align(answer: Callable[..., Any]) -> str:
    transform = Translation()
    images = F.pad(digits("test")[0][:4], (26, 26, 26, 26))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(8))
    angle = torch.tensor([0.4, 1.9, 3.5, 5.0])
    start = 16 / 40 * torch.stack([angle.cos(), angle.sin()], 1)
    ends = _ends_of(answer, transform, images, images + 0.1 * noise, start)
    off = 40 * ends.norm(dim=1)
    if torch.allclose(ends, start, atol=1e-3):
        raise Wrong("it has not moved; return what descend returns")
    if off.max() > 2:
        raise Wrong("from 16 pixels off not all come home: without the copies theta does not see so far")
    # Median errors from this start: 0.03 pixels refined, 0.2 with the copies alone.
    if off.median() > 0.1:
        raise Wrong(
            "it comes home, but only to within a fifth of a pixel: the noise holds it off. "
            "Let the image's own slopes take the last steps"
        )
    return "From 16 pixels to a few hundredths of one, through noise."


def _ends_of(
    answer: Callable[..., Any], transform: Transform, images: Tensor, wanted: Tensor, start: Tensor
) -> Tensor:
    given = answer(transform, images, wanted, start)
    expect(
        isinstance(given, Tensor) and given.shape == start.shape,
        f"align should return theta, of shape {tuple(start.shape)}",
    )
    ends: Tensor = given.detach().cpu()
    expect(bool(ends.isfinite().all()), "theta is not finite")
    return ends


def _middles(n: int) -> Tensor:
    return (torch.arange(n) + 0.5) / n - 0.5


def _ends(n: int) -> Tensor:
    return torch.linspace(-0.5, 0.5, n) if n > 1 else torch.zeros(1)


def _mean(image: Tensor, place: Tensor, J: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The mean of the samples at place + J d, for all d of a lattice."""
    d = torch.cartesian_prod(across, down).view(-1, 2)
    size = torch.tensor([image.shape[1], image.shape[0]])
    grid = (2 * (place + d @ J.T) + 1) / size - 1
    return F.grid_sample(image[None, None], grid[None, None], align_corners=False).mean()
